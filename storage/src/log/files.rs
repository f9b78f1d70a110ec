//! What is looked at in raft-engine's files before and after it opens them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
/// Version and alignment follow the magic, eight bytes each.
const HEADER_BYTES: usize = MAGIC.len() + 16;

/// Whether the header of every file may be given to raft-engine. It has no checksum, and an alignment that was hit by
/// a flipped bit makes raft-engine ask for more memory than there is, which ends the process without a word. We never
/// write an alignment.
pub(super) fn check_headers(engine: &Path) -> io::Result<Result<(), String>> {
    for name in sizes_of(engine)?.into_keys() {
        if !name.ends_with(".raftlog") && !name.ends_with(".rewrite") {
            continue;
        }
        let path = engine.join(name);
        let mut header = Vec::with_capacity(HEADER_BYTES);
        File::open(&path)?
            .take(HEADER_BYTES as u64)
            .read_to_end(&mut header)?;
        let alignment = header.get(MAGIC.len() + 8..).unwrap_or_default();
        if header.starts_with(MAGIC) && alignment.iter().any(|byte| *byte != 0) {
            let path = path.display();
            return Ok(Err(format!(
                "{path} is damaged at offset {}",
                MAGIC.len() + 8
            )));
        }
    }
    Ok(Ok(()))
}

/// Sizes of the files that are closed: recovery may cut the last one of each kind and no other. They are noted before
/// the first attempt, because that attempt changes them.
pub(super) struct Closed {
    note: PathBuf,
    dir: PathBuf,
    sizes: BTreeMap<String, u64>,
}

impl Closed {
    /// The note of an attempt that did not end well: what it cut off, later attempts do not see.
    pub(super) fn unfinished(dir: &Path, engine_dir: &Path) -> io::Result<Option<Self>> {
        let note = dir.join("repairing");
        match fs::read_to_string(&note) {
            Ok(text) => Ok(Some(Self {
                note,
                dir: engine_dir.to_owned(),
                sizes: parse(&text),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn before_repair(dir: &Path, engine_dir: &Path) -> io::Result<Self> {
        if let Some(unfinished) = Self::unfinished(dir, engine_dir)? {
            return Ok(unfinished);
        }
        let (note, sizes) = (dir.join("repairing"), sizes_of(engine_dir)?);
        let lines: Vec<_> = sizes
            .iter()
            .map(|(name, bytes)| format!("{bytes} {name}"))
            .collect();
        let temporary = dir.join("repairing.tmp");
        fs::write(&temporary, lines.join("\n"))?;
        File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, &note)?;
        File::open(dir)?.sync_all()?;
        Ok(Self {
            note,
            dir: engine_dir.to_owned(),
            sizes,
        })
    }

    pub(super) fn check(&self) -> Result<(), String> {
        for kind in [".raftlog", ".rewrite"] {
            let mut files = self
                .sizes
                .iter()
                .filter(|(name, _)| name.ends_with(kind))
                .rev();
            // the last one was being written
            files.next();
            for (name, before) in files {
                let path = self.dir.join(name);
                let now = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                if now < *before {
                    let path = path.display();
                    return Err(format!(
                        "{path} is damaged from offset {now} on, of {before}"
                    ));
                }
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> io::Result<()> {
        fs::remove_file(self.note)
    }
}

fn sizes_of(dir: &Path) -> io::Result<BTreeMap<String, u64>> {
    let mut sizes = BTreeMap::new();
    for file in fs::read_dir(dir)? {
        let file = file?;
        if let Ok(name) = file.file_name().into_string() {
            sizes.insert(name, file.metadata()?.len());
        }
    }
    Ok(sizes)
}

fn parse(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .filter_map(|(bytes, name)| Some((name.to_owned(), bytes.parse().ok()?)))
        .collect()
}
