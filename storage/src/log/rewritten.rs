//! A lower bound for the files into which raft-engine rewrites old but living data.
//!
//! Clean-up moves votes and last entries of quiet groups from old files into `.rewrite` files and deletes the old ones.
//! What recovery cuts off there is not covered by the high-water mark, which travels with the newest writes. So after
//! each clean-up, when raft-engine has synced what it rewrote, a note says how far the last of these files goes.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const NOTE: &str = "rewritten";
const BLOCK: usize = 64 << 10;

/// The last rewrite file and how far it is filled.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filled {
    name: String,
    bytes: u64,
}

/// Keeps the note.
#[derive(Debug)]
pub(super) struct Rewritten {
    home: PathBuf,
    engine: PathBuf,
    noted: Option<Filled>,
}

impl Rewritten {
    /// The note in the log's directory, if there is one.
    pub(super) fn open(home: &Path, engine: &Path) -> io::Result<Self> {
        let noted = match fs::read_to_string(home.join(NOTE)) {
            Ok(text) => parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            home: home.to_owned(),
            engine: engine.to_owned(),
            noted,
        })
    }

    /// Compares the note with what recovery left.
    pub(super) fn check(&self) -> Result<(), String> {
        let Some(Filled { name, bytes }) = &self.noted else {
            return Ok(());
        };
        let path = self.engine.join(name);
        let found = fs::metadata(&path).map(|metadata| metadata.len());
        let replaced = || {
            self.last()
                .is_ok_and(|last| last.is_some_and(|last| last > *name))
        };
        match found {
            Ok(found) if found >= *bytes => Ok(()),
            Ok(found) => {
                let path = path.display();
                Err(format!(
                    "{path} is damaged from offset {found} on, of {bytes}"
                ))
            },
            // rewritten again and deleted, before that was noted
            Err(_) if replaced() => Ok(()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// Notes what is there now; everything in it has to be synced.
    pub(super) fn note(&mut self) -> io::Result<()> {
        let Some(name) = self.last()? else {
            return Ok(());
        };
        let bytes = filled(&self.engine.join(&name))?;
        let now = Some(Filled { name, bytes });
        if now == self.noted {
            return Ok(());
        }
        self.noted = now;
        let Some(Filled { name, bytes }) = &self.noted else {
            return Ok(());
        };
        let (path, temporary) = (self.home.join(NOTE), self.home.join("rewritten.tmp"));
        fs::write(&temporary, format!("{bytes} {name}\n"))?;
        File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&self.home)?.sync_all()
    }

    fn last(&self) -> io::Result<Option<String>> {
        let mut last = None;
        for file in fs::read_dir(&self.engine)? {
            let name = file?.file_name().into_string().unwrap_or_default();
            if name.ends_with(".rewrite") && Some(&name) > last.as_ref() {
                last = Some(name);
            }
        }
        Ok(last)
    }
}

/// One past the last byte that is not zero: the rest was only allocated.
fn filled(path: &Path) -> io::Result<u64> {
    let file = File::open(path)?;
    let mut end = file.metadata()?.len();
    let mut block = vec![0; BLOCK];
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let length = usize::try_from(end - start).unwrap_or(BLOCK);
        let block = block.get_mut(..length).unwrap_or_default();
        file.read_exact_at(block, start)?;
        if let Some(at) = block.iter().rposition(|byte| *byte != 0) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn parse(text: &str) -> Option<Filled> {
    let (bytes, name) = text.trim_end().split_once(' ')?;
    Some(Filled {
        name: name.to_owned(),
        bytes: bytes.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().expect("temporary directory");
        let engine = home.path().join("engine");
        fs::create_dir(&engine).expect("created");
        (home, engine)
    }

    #[test]
    fn a_cut_or_deleted_rewrite_file_is_noticed_and_its_empty_end_is_not() {
        let (home, engine) = home();
        let open = || Rewritten::open(home.path(), &engine).expect("readable");
        open().note().expect("nothing to note");
        assert_eq!(open().check(), Ok(()));
        let (first, second) = (engine.join("01.rewrite"), engine.join("02.rewrite"));
        fs::write(&first, [1; 100]).expect("written");
        fs::write(&second, [vec![2; 100], vec![0; 200_000]].concat()).expect("written");
        open().note().expect("noted");
        fs::write(&second, [2; 100]).expect("the allocated end is cut off");
        assert_eq!(open().check(), Ok(()));
        fs::write(&second, [2; 99]).expect("written");
        assert!(open().check().is_err(), "cut");
        fs::remove_file(&second).expect("removed");
        assert!(open().check().is_err(), "deleted");
        fs::write(engine.join("03.rewrite"), [3; 9]).expect("written");
        assert_eq!(open().check(), Ok(()), "rewritten again");
    }
}
