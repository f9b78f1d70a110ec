//! Snapshots: all rows of a shard at one index, as checked bytes.
//!
//! Layout, numbers little endian: magic `UMBS`, format byte, header frame, row frames, end frame. A frame is a length
//! (u32), a CRC32 (u32) and that many bytes. The end frame repeats count and digest of the rows, so that a cut is
//! noticed even at a frame's border; no byte may follow it.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use umbel_core::ids::ShardId;

use crate::{
    codec::{self, RECORD_BYTES_MAX},
    digest,
    state::{Digest, Mark, StateError},
    table::Table,
};

const MAGIC: &[u8; 4] = b"UMBS";
const FORMAT: u8 = 1;

/// A durable copy of a shard's rows at one index.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Whose rows.
    pub shard: ShardId,
    /// How far they were applied.
    pub mark: Mark,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    File(PathBuf),
    Memory(Bytes),
}

impl Snapshot {
    pub(crate) fn in_file(shard: ShardId, mark: Mark, path: PathBuf) -> Self {
        Self {
            shard,
            mark,
            body: Body::File(path),
        }
    }

    pub(crate) fn in_memory(shard: ShardId, mark: Mark, bytes: Bytes) -> Self {
        Self {
            shard,
            mark,
            body: Body::Memory(bytes),
        }
    }

    /// A reader of the snapshot's bytes, to be sent elsewhere.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        match &self.body {
            Body::File(path) => Ok(Box::new(BufReader::new(File::open(path)?))),
            Body::Memory(bytes) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
        }
    }

    /// The bytes as they are now, to be read from any place on; they stay while a newer snapshot takes this one's place.
    pub fn source(&self) -> io::Result<Source> {
        let (bytes, length) = match &self.body {
            Body::File(path) => {
                let file = File::open(path)?;
                let length = file.metadata()?.len();
                (SourceBytes::File(file), length)
            },
            Body::Memory(bytes) => (SourceBytes::Memory(bytes.clone()), bytes.len() as u64),
        };
        Ok(Source {
            shard: self.shard,
            bytes,
            length,
        })
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.body {
            Body::File(path) => Some(path),
            Body::Memory(_) => None,
        }
    }

    /// All bytes at once.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open()?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The bytes of a snapshot, held open.
#[derive(Debug)]
pub struct Source {
    shard: ShardId,
    bytes: SourceBytes,
    length: u64,
}

#[derive(Debug)]
enum SourceBytes {
    File(File),
    Memory(Bytes),
}

impl Source {
    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// How far the rows in it were applied. Not that of the [`Snapshot`] it came from, if that was replaced meanwhile.
    pub fn mark(&self) -> Result<Mark, StateError> {
        read_mark(&mut BufReader::new(At(self, 0)), self.shard)
    }

    /// Bytes from a place on, at most so many; fewer only at the end.
    pub fn read_at(&self, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; most.min(left)];
        match &self.bytes {
            SourceBytes::File(file) => file.read_exact_at(&mut bytes, offset)?,
            SourceBytes::Memory(all) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let found = all.get(from..).unwrap_or_default();
                let found = found.get(..bytes.len()).unwrap_or_default();
                bytes.copy_from_slice(found);
            },
        }
        Ok(bytes)
    }
}

/// Reads a source from a place on.
struct At<'a>(&'a Source, u64);

impl Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.read_at(self.1, into.len())?;
        self.1 += bytes.len() as u64;
        if let Some(into) = into.get_mut(..bytes.len()) {
            into.copy_from_slice(&bytes);
        }
        Ok(bytes.len())
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    shard: ShardId,
    index: u64,
    digest: u128,
    meta: Vec<u8>,
}

/// What a frame after the header holds.
#[derive(Serialize, Deserialize)]
enum Frame<'a> {
    Row {
        table: u8,
        key: &'a [u8],
        value: &'a [u8],
    },
    End {
        rows: u64,
        digest: u128,
    },
}

/// Writes one snapshot: the header at once, then rows, then [`Writer::finish`].
pub(crate) struct Writer<W> {
    out: W,
    rows: u64,
    digest: Digest,
}

impl<W: io::Write> Writer<W> {
    pub(crate) fn begin(mut out: W, shard: ShardId, mark: &Mark) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        out.write_all(&[FORMAT])?;
        let header = Header {
            shard,
            index: mark.index,
            digest: mark.digest.0,
            meta: mark.meta.clone(),
        };
        let mut writer = Self {
            out,
            rows: 0,
            digest: Digest::default(),
        };
        writer.frame(&header)?;
        Ok(writer)
    }

    pub(crate) fn row(&mut self, table: u8, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.rows += 1;
        self.digest = self.digest.plus(digest::of_row(table, key, value));
        self.frame(&Frame::Row { table, key, value })
    }

    pub(crate) fn finish(mut self) -> io::Result<(W, Digest)> {
        let digest = self.digest;
        self.frame(&Frame::End {
            rows: self.rows,
            digest: digest.0,
        })?;
        self.out.flush()?;
        Ok((self.out, digest))
    }

    fn frame<T: Serialize>(&mut self, content: &T) -> io::Result<()> {
        let bytes = codec::encode(FORMAT, content).map_err(io::Error::other)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&crc32fast::hash(&bytes).to_le_bytes())?;
        self.out.write_all(&bytes)
    }
}

/// Reads a snapshot, checks every byte, and hands each row to `each`. What `each` was given counts only when this
/// returned `Ok`.
pub(crate) fn read(
    input: &mut dyn Read,
    shard: ShardId,
    mut each: impl FnMut(u8, &[u8], &[u8]) -> Result<(), StateError>,
) -> Result<Mark, StateError> {
    let bad = |detail: String| StateError::Snapshot { shard, detail };
    let mark = read_mark(input, shard)?;
    let (mut count, mut sum) = (0u64, Digest::default());
    loop {
        let bytes = read_frame(input).map_err(bad)?;
        let (format, body) = codec::format_of(&bytes).map_err(|error| bad(error.to_string()))?;
        if format != FORMAT {
            return Err(bad(format!("unknown frame format {format}")));
        }
        match codec::decode_borrowed::<Frame<'_>>(body).map_err(|error| bad(error.to_string()))? {
            Frame::Row { table, key, value } => {
                count += 1;
                sum = sum.plus(digest::of_row(table, key, value));
                each(table, key, value)?;
            },
            Frame::End { rows, digest } => {
                if (rows, digest) != (count, sum.0) || digest != mark.digest.0 {
                    return Err(bad("rows do not match the digest".to_owned()));
                }
                break;
            },
        }
    }
    match input.read(&mut [0]) {
        Ok(0) => Ok(mark),
        Ok(_) => Err(bad("bytes follow the end".to_owned())),
        Err(error) => Err(bad(error.to_string())),
    }
}

/// Reads a snapshot's bytes that are in no state, as in a backup: checks every byte and hands each row to `each`. What
/// `each` was given counts only when this returned `Ok`.
pub fn read_rows(
    input: &mut dyn Read,
    shard: ShardId,
    mut each: impl FnMut(Table, &[u8], &[u8]) -> Result<(), StateError>,
) -> Result<Mark, StateError> {
    read(input, shard, |number, key, value| {
        let table = Table::from_number(number).ok_or_else(|| StateError::Snapshot {
            shard,
            detail: format!("there is no table {number} in this release"),
        })?;
        each(table, key, value)
    })
}

/// Reads and checks the header only.
pub(crate) fn read_mark(input: &mut dyn Read, shard: ShardId) -> Result<Mark, StateError> {
    let bad = |detail: String| StateError::Snapshot { shard, detail };
    let mut start = [0; MAGIC.len() + 1];
    input
        .read_exact(&mut start)
        .map_err(|error| bad(error.to_string()))?;
    if !start.starts_with(MAGIC) || !start.ends_with(&[FORMAT]) {
        return Err(bad("not a snapshot of a known format".to_owned()));
    }
    let bytes = read_frame(input).map_err(bad)?;
    let header: Header = codec::decode(FORMAT, &bytes).map_err(|error| bad(error.to_string()))?;
    if header.shard != shard {
        return Err(bad(format!("belongs to shard {}", header.shard)));
    }
    Ok(Mark {
        index: header.index,
        digest: Digest(header.digest),
        meta: header.meta,
    })
}

fn read_frame(input: &mut dyn Read) -> Result<Vec<u8>, String> {
    let mut head = [0; 8];
    input
        .read_exact(&mut head)
        .map_err(|error| format!("cut off: {error}"))?;
    let [a, b, c, d, crc @ ..] = head;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > RECORD_BYTES_MAX {
        return Err(format!("a frame of {length} bytes"));
    }
    let mut bytes = vec![0; length];
    input
        .read_exact(&mut bytes)
        .map_err(|error| format!("cut off: {error}"))?;
    if crc32fast::hash(&bytes) == u32::from_le_bytes(crc) {
        Ok(bytes)
    } else {
        Err("checksum of a frame does not match".to_owned())
    }
}
