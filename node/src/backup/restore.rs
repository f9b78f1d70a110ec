//! `umbel restore`: a backup becomes a new cluster of one node, through the log like everything else.

use std::{
    fs::{self, File},
    io::{BufReader, Read, Seek, SeekFrom, Write as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{sync::mpsc, time::timeout};
use umbel_core::ids::ShardId;
use umbel_storage::{Ledger, Write, snapshot};

use super::format::{Frame, Manifest, Reader, ShardEnd};
use crate::{cli::RestoreArgs, config::Config, datadir, wire};

/// Bytes of one command: well below what a log entry may hold.
const COMMAND_BYTES: usize = 256 << 10;
/// Commands on their way at the same time.
const COMMANDS_WAITING: usize = 8;
/// How long a command may take, on a slow disk.
const COMMAND_WITHIN: Duration = Duration::from_mins(1);

/// What came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Restored {
    shards: u16,
    rows: u64,
}

/// Makes the cluster and returns what to tell the user.
pub(crate) async fn restore(args: &RestoreArgs, config: &Config) -> Result<String> {
    let folder = &config.node.data_dir;
    datadir::check_whole(folder)?;
    let is_free = fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    ensure!(
        is_free,
        "{} is not empty; a backup is restored into an empty folder",
        folder.display()
    );
    let shown = || args.input.display().to_string();
    let file = File::open(&args.input).with_context(shown)?;
    let mut reader = Reader::open(BufReader::new(file)).with_context(shown)?;
    let Frame::Manifest(manifest) = reader.next().with_context(shown)? else {
        bail!("{}: there is no manifest", shown());
    };
    ensure!(
        manifest.shards == config.cluster.shards,
        "the backup has {} shards and the configuration says {}: set `cluster.shards = {}`",
        manifest.shards,
        config.cluster.shards,
        manifest.shards
    );
    // Half a cluster must not be started, whatever happens to this process.
    datadir::begin_restore(folder).with_context(|| folder.display().to_string())?;
    let restored = fill(reader, &manifest, config).await;
    let restored = match restored {
        Ok(restored) => restored,
        Err(error) => {
            // It was empty before.
            datadir::empty(folder).context("what was restored so far could not be removed")?;
            return Err(error.context(shown()));
        },
    };
    datadir::end_restore(folder).with_context(|| folder.display().to_string())?;
    let (rows, shards) = (restored.rows, restored.shards);
    Ok(format!(
        "{rows} rows of {shards} shards are in {}. Start the node, then let others in with `umbel ctl token create`",
        folder.display()
    ))
}

async fn fill(
    mut reader: Reader<BufReader<File>>,
    manifest: &Manifest,
    config: &Config,
) -> Result<Restored> {
    let store = wire::Store::found(config).await?;
    let ledger = store.ledger();
    let outcome = async {
        let mut restored = Restored::default();
        let mut next = 0;
        loop {
            // Between two shards: only a head or the end may come.
            match reader.next()? {
                Frame::Shard(head) => {
                    ensure!(head.shard == next, "shard {} is out of order", head.shard);
                    if let Some(spool) = spool(&mut reader, &config.node.data_dir)? {
                        restored.rows += load(spool, ShardId(head.shard), &ledger).await?;
                        restored.shards += 1;
                        next += 1;
                    }
                },
                Frame::End(end) => {
                    ensure!(
                        end.shards == restored.shards && restored.shards == manifest.shards,
                        "it has {} of {} shards",
                        restored.shards,
                        manifest.shards
                    );
                    ensure!(reader.is_at_end()?, "bytes follow the end");
                    return Ok(restored);
                },
                Frame::Manifest(_) | Frame::Part(_) | Frame::ShardEnd(_) | Frame::Abandoned => {
                    bail!("a frame is out of place")
                },
            }
        }
    }
    .await;
    store.close().await;
    outcome
}

/// Collects the parts of one shard in a file without a name; `None` if they were abandoned.
fn spool(reader: &mut Reader<BufReader<File>>, folder: &Path) -> Result<Option<File>> {
    let mut spool = tempfile_in(folder)?;
    let (mut bytes, mut crc) = (0, crc32fast::Hasher::new());
    loop {
        match reader.next()? {
            Frame::Part(part) => {
                spool.write_all(&part)?;
                crc.update(&part);
                bytes += part.len() as u64;
            },
            Frame::Abandoned => return Ok(None),
            Frame::ShardEnd(ShardEnd {
                bytes: wanted,
                crc32,
                ..
            }) => {
                ensure!(
                    bytes == wanted && crc.finalize() == crc32,
                    "the checksum of a shard does not match"
                );
                spool.seek(SeekFrom::Start(0))?;
                return Ok(Some(spool));
            },
            Frame::Manifest(_) | Frame::Shard(_) | Frame::End(_) => {
                bail!("a shard ends before its end")
            },
        }
    }
}

/// A file that goes with the process.
fn tempfile_in(folder: &Path) -> std::io::Result<File> {
    let path = folder.join("restore.part");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}

/// Checks a whole snapshot, then proposes its rows.
async fn load(mut spool: File, shard: ShardId, ledger: &Arc<dyn Ledger>) -> Result<u64> {
    let (sender, receiver) = mpsc::channel(COMMANDS_WAITING);
    let reading = tokio::task::spawn_blocking(move || {
        let mut read = |each: &mut dyn FnMut(Write)| {
            let mut input: BufReader<&mut File> = BufReader::new(&mut spool);
            let input: &mut dyn Read = &mut input;
            let read = snapshot::read_rows(input, shard, |table, key, value| {
                each(Write::put(table, key, value.to_vec()));
                Ok(())
            });
            spool.seek(SeekFrom::Start(0)).map(|_| read)
        };
        read(&mut |_| ())??;
        let mut command = Command::default();
        let mut rows = 0;
        read(&mut |write| {
            rows += 1;
            if let Some(full) = command.push(write) {
                // A writer that gave up says why itself.
                drop(sender.blocking_send(full));
            }
        })??;
        drop(sender.blocking_send(command.writes));
        Ok::<u64, anyhow::Error>(rows)
    });
    propose(receiver, shard, ledger).await?;
    reading.await.context("reading a snapshot")?
}

#[derive(Default)]
struct Command {
    writes: Vec<Write>,
    bytes: usize,
}

impl Command {
    /// Adds a row; gives back what was there before if it is enough.
    fn push(&mut self, write: Write) -> Option<Vec<Write>> {
        let value = match &write.operation {
            umbel_storage::Operation::Put(value) => value.len(),
            umbel_storage::Operation::Delete | umbel_storage::Operation::DeletePrefix => 0,
        };
        let bytes = write.key.len() + value;
        let is_full = self.bytes + bytes > COMMAND_BYTES && !self.writes.is_empty();
        let full = is_full.then(|| std::mem::take(self).writes);
        self.bytes += bytes;
        self.writes.push(write);
        full
    }
}

async fn propose(
    mut commands: mpsc::Receiver<Vec<Write>>,
    shard: ShardId,
    ledger: &Arc<dyn Ledger>,
) -> Result<()> {
    let term = ledger.term(shard);
    let term = term.with_context(|| format!("shard {shard} does not start"))?;
    while let Some(writes) = commands.recv().await {
        if writes.is_empty() {
            continue;
        }
        let receipt = ledger.propose(shard, term, writes);
        timeout(COMMAND_WITHIN, receipt)
            .await
            .with_context(|| format!("shard {shard}: the disk does not answer"))?
            .with_context(|| format!("shard {shard}"))?;
    }
    Ok(())
}
