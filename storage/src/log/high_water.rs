//! A lower bound for what the log has to contain, kept outside of it.
//!
//! Recovery of a log cuts off what it cannot read at the end: right for a write that was torn, a disaster for
//! acknowledged entries behind a flipped bit. Each flush carries a number into the log, and this file names the last
//! number known to be durable. It is written without a sync of its own, so after a power cut it may be behind, never
//! ahead: a log that recovers to less than it says has lost acknowledged data.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

const BYTES: usize = 12;

/// The open file.
#[derive(Debug)]
pub(super) struct HighWater(File);

impl HighWater {
    /// Opens or creates the file; with the number it holds. A file that fails its checksum bounds nothing.
    pub(super) fn open(path: &Path) -> io::Result<(Self, u64)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut bytes = [0; BYTES];
        let number = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => decode(bytes).unwrap_or_else(|| {
                tracing::warn!(path = %path.display(), "high-water mark of the log is unreadable");
                0
            }),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(error),
        };
        Ok((Self(file), number))
    }

    /// Notes that everything up to flush `number` is durable.
    pub(super) fn raise(&self, number: u64) -> io::Result<()> {
        self.0.write_all_at(&encode(number), 0)
    }
}

fn encode(number: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let (value, crc) = bytes.split_at_mut(8);
    value.copy_from_slice(&number.to_le_bytes());
    crc.copy_from_slice(&crc32fast::hash(&number.to_le_bytes()).to_le_bytes());
    bytes
}

fn decode(bytes: [u8; BYTES]) -> Option<u64> {
    let (value, crc) = bytes.split_first_chunk::<8>()?;
    (crc == crc32fast::hash(value).to_le_bytes()).then(|| u64::from_le_bytes(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_read_back_and_damage_bounds_nothing() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("high-water");
        let (mark, number) = HighWater::open(&path).expect("created");
        assert_eq!(number, 0);
        mark.raise(7).expect("written");
        mark.raise(9).expect("written");
        assert_eq!(HighWater::open(&path).expect("opened").1, 9);
        let mut bytes = std::fs::read(&path).expect("readable");
        bytes[0] ^= 1;
        std::fs::write(&path, bytes).expect("writable");
        assert_eq!(HighWater::open(&path).expect("opened").1, 0);
    }
}
