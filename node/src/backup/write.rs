//! Reads every shard from its owner, one after the other, and writes them into one stream.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use umbel_core::{ids::ShardId, time::Timestamp};
use umbel_http::operator::{BackupStream, Denied};

use super::format::{End, Frame, Manifest, ShardEnd, ShardHead, opening};
use crate::operator::{Answer, Ask, Operations};

/// Frames between the reading and the client: a slow client slows the reading, not the cluster.
const FRAMES_WAITING: usize = 4;
/// A snapshot of a large shard takes its time.
const CUT_WITHIN: Duration = Duration::from_mins(1);
const PART_WITHIN: Duration = Duration::from_secs(10);
/// How often a shard is begun anew, and the wait between. Owners change in seconds.
const ATTEMPTS: u32 = 10;
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);

/// The backup as a stream. An error ends it, and the file is then without its closing frame.
pub(crate) fn stream(operations: Operations, now: Timestamp) -> BackupStream {
    let (sender, receiver) = mpsc::channel(FRAMES_WAITING);
    // Detached: it ends with the receiver.
    drop(tokio::spawn(async move {
        let writer = Writer { operations, sender };
        match writer.run(now).await {
            Ok(()) => tracing::info!("a backup is complete"),
            Err(Stop::Gone) => tracing::warn!("the reader of a backup went away"),
            Err(Stop::Failed(why)) => {
                tracing::warn!(%why, "a backup was given up");
                drop(writer.sender.send(Err(Denied::NoQuorum(why))).await);
            },
        }
    }));
    Box::pin(futures_util::stream::unfold(
        receiver,
        async |mut receiver| receiver.recv().await.map(|part| (part, receiver)),
    ))
}

enum Stop {
    /// Nobody reads any more.
    Gone,
    /// It cannot be completed.
    Failed(String),
}

struct Writer {
    operations: Operations,
    sender: mpsc::Sender<Result<Bytes, Denied>>,
}

impl Writer {
    async fn run(&self, now: Timestamp) -> Result<(), Stop> {
        let shards = self.operations.shard_count();
        let manifest = Manifest {
            cluster: self.operations.cluster_id(),
            shards,
            created_at: now.millis(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.put(opening()).await?;
        self.frame(Frame::Manifest(manifest)).await?;
        for shard in (0..shards).map(ShardId) {
            self.shard(shard).await?;
        }
        self.frame(Frame::End(End { shards })).await
    }

    async fn shard(&self, shard: ShardId) -> Result<(), Stop> {
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(ATTEMPT_PAUSE).await;
            }
            match self.attempt(shard).await {
                Ok(()) => return Ok(()),
                Err(Stop::Gone) => return Err(Stop::Gone),
                Err(Stop::Failed(why)) => last = why,
            }
        }
        Err(Stop::Failed(format!("shard {shard}: {last}")))
    }

    /// One try, from a head to an end or an abandonment.
    async fn attempt(&self, shard: ShardId) -> Result<(), Stop> {
        let failed = |why: &str| Stop::Failed(why.to_owned());
        let owner = self.operations.owner(shard);
        let node = owner.ok_or_else(|| failed("nobody owns it"))?;
        let ask = Ask::Cut(shard);
        let cut = match self.operations.ask_one(node, ask, CUT_WITHIN).await {
            Ok(Answer::Cut(cut)) => cut,
            Ok(_) => return Err(failed("an answer to another question")),
            Err(why) => return Err(Stop::Failed(why)),
        };
        self.frame(Frame::Shard(ShardHead {
            shard: shard.0,
            index: cut.index,
            node: node.0,
        }))
        .await?;
        let (mut bytes, mut crc) = (0, crc32fast::Hasher::new());
        loop {
            let ask = Ask::Part {
                ticket: cut.ticket,
                offset: bytes,
            };
            let part = match self.operations.ask_one(node, ask, PART_WITHIN).await {
                Ok(Answer::Part(part)) => part,
                Ok(_) => return self.abandon("an answer to another question").await,
                Err(why) => return self.abandon(&why).await,
            };
            bytes += part.bytes.len() as u64;
            crc.update(&part.bytes);
            if !part.bytes.is_empty() {
                self.frame(Frame::Part(part.bytes.to_vec())).await?;
            }
            if part.is_last {
                break;
            }
        }
        let end = ShardEnd {
            shard: shard.0,
            bytes,
            crc32: crc.finalize(),
        };
        self.frame(Frame::ShardEnd(end)).await
    }

    async fn abandon(&self, why: &str) -> Result<(), Stop> {
        self.frame(Frame::Abandoned).await?;
        Err(Stop::Failed(why.to_owned()))
    }

    async fn frame(&self, frame: Frame) -> Result<(), Stop> {
        self.put(frame.encode()).await
    }

    async fn put(&self, bytes: Vec<u8>) -> Result<(), Stop> {
        let sent = self.sender.send(Ok(bytes.into())).await;
        sent.map_err(|_closed| Stop::Gone)
    }
}
