//! Snapshots on their way to a member, in pieces, over a connection of their own.
//!
//! The sender reads its file piece by piece and the receiver writes each to a file: nobody has the whole in memory. A
//! snapshot has an id made of what it holds, and the receiver says how much of that id it has: a stream that breaks goes
//! on where it was, and another sender with the same rows goes on for it. At the end every byte is checked, the file is
//! synced, and openraft decides whether it is installed; only then does it take the older one's place.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use openraft::{Snapshot, Vote, raft::SnapshotResponse};
use serde::{Deserialize, Serialize};
use umbel_core::ids::{NodeId, ShardId};
use umbel_storage::{
    PeerError,
    snapshot::Source,
    state::{Mark, StateError},
};

use super::group::Group;
use crate::{
    hosted::Hosted,
    link::{BoxFuture, Handler, Service, Transport},
    raft::{
        machine::snapshot_meta,
        rpc::VoteSeen,
        types::{SnapshotBody, Types},
    },
    wire,
};

/// Bytes of a piece: large enough to fill a connection, small enough to be sent again.
const PIECE_BYTES: usize = 512 << 10;
/// How long a piece may take to be written on the other side.
const PIECE_WITHIN: Duration = Duration::from_secs(10);
/// How long checking and installing may take: rows are written one by one.
const INSTALL_WITHIN: Duration = Duration::from_mins(10);
/// A piece that was lost is sent again so often before the stream is given up; openraft begins another soon.
const TRIES_MAX: u32 = 5;
/// What is waited before a piece is sent again.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(200);

#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// How much of it is there?
    Begin(Which),
    /// The next piece, with its checksum.
    Piece {
        which: Which,
        offset: u64,
        crc: u32,
        bytes: Bytes,
    },
    /// That was all: install it, from the leader of that vote.
    Finish { which: Which, vote: VoteSeen },
}

/// A snapshot of a group.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Which {
    group: u64,
    id: u64,
    length: u64,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// So many bytes are there.
    Have(u64),
    /// It is dealt with; the receiver's vote, which may be another leader's.
    Done(VoteSeen),
}

/// Sends a snapshot and waits until it is installed.
pub(crate) async fn send(
    transport: Arc<dyn Transport>,
    to: NodeId,
    group: u64,
    vote: Vote<u64>,
    snapshot: Snapshot<Types>,
) -> Result<SnapshotResponse<u64>, String> {
    let body = snapshot.snapshot.0.ok_or("there is no snapshot")?;
    let source = blocking(move || body.source()).await?;
    let source = Arc::new(source.map_err(|error| error.to_string())?);
    let mark = {
        let source = Arc::clone(&source);
        blocking(move || source.mark()).await?
    };
    let which = Which {
        group,
        id: id_of(&mark.map_err(|error| error.to_string())?, source.length()),
        length: source.length(),
    };
    tracing::info!(
        shard = group,
        node = to.0,
        bytes = which.length,
        "a snapshot is sent"
    );
    let sender = Sender { transport, to };
    sender.pieces(which, &source).await?;
    let vote = vote.into();
    match sender
        .ask(&Ask::Finish { which, vote }, INSTALL_WITHIN)
        .await?
    {
        Answer::Done(vote) => Ok(SnapshotResponse::new(vote.into())),
        Answer::Have(_) => Err("the receiver does not have all of the snapshot".to_owned()),
    }
}

/// The same rows at the same place of the log make the same snapshot, whoever took it.
fn id_of(mark: &Mark, length: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (mark.index, mark.digest.0, &mark.meta, length).hash(&mut hasher);
    hasher.finish()
}

struct Sender {
    transport: Arc<dyn Transport>,
    to: NodeId,
}

impl Sender {
    async fn pieces(&self, which: Which, source: &Arc<Source>) -> Result<(), String> {
        let (mut offset, mut tries) = (None, 0);
        loop {
            let outcome = match offset {
                None => self.ask(&Ask::Begin(which), PIECE_WITHIN).await,
                Some(offset) if offset >= which.length => return Ok(()),
                Some(offset) => self.piece(which, source, offset).await,
            };
            match outcome {
                Ok(Answer::Have(here)) => {
                    (offset, tries) = (Some(here), 0);
                },
                Ok(Answer::Done(_)) => return Err("an answer that does not fit".to_owned()),
                Err(error) if tries < TRIES_MAX => {
                    tracing::debug!(node = self.to.0, error, "a piece of a snapshot is lost");
                    tries += 1;
                    offset = None;
                    tokio::time::sleep(TRY_AGAIN_AFTER).await;
                },
                Err(error) => return Err(error),
            }
        }
    }

    async fn piece(
        &self,
        which: Which,
        source: &Arc<Source>,
        offset: u64,
    ) -> Result<Answer, String> {
        let source = Arc::clone(source);
        let bytes = blocking(move || source.read_at(offset, PIECE_BYTES)).await?;
        let bytes = Bytes::from(bytes.map_err(|error| error.to_string())?);
        let piece = Ask::Piece {
            which,
            offset,
            crc: crc32fast::hash(&bytes),
            bytes,
        };
        self.ask(&piece, PIECE_WITHIN).await
    }

    async fn ask(&self, ask: &Ask, within: Duration) -> Result<Answer, String> {
        let body = wire::encode(ask);
        let answer = self.transport.request(self.to, Service::Bulk, body, within);
        let answer = answer.await.map_err(|error: PeerError| error.to_string())?;
        wire::decode(&answer).map_err(|error| error.to_string())
    }
}

/// Takes snapshots for the groups of this node.
pub(crate) struct Receiver(pub(crate) Weak<Hosted>);

impl Handler for Receiver {
    fn request(&self, from: NodeId, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let hosted = self.0.upgrade();
        Box::pin(async move {
            let hosted = hosted.ok_or("the node stops")?;
            let ask: Ask = wire::decode(&body).map_err(|error| error.to_string())?;
            let (Ask::Begin(which) | Ask::Piece { which, .. } | Ask::Finish { which, .. }) = &ask;
            let group = u16::try_from(which.group)
                .ok()
                .and_then(|number| hosted.get(ShardId(number))?.group())
                .ok_or("the node has no such group")?;
            let answer = group.take(from, ask).await?;
            Ok(wire::encode(&answer))
        })
    }

    fn notice(&self, from: NodeId, _body: Bytes) {
        tracing::debug!(node = from.0, "snapshots are asked for, not told of");
    }
}

impl Group {
    async fn take(&self, from: NodeId, ask: Ask) -> Result<Answer, String> {
        // One thing after the other: two senders may have the same snapshot.
        let _only = self.receiving.lock().await;
        let shard = self.machine.shard();
        match ask {
            Ask::Begin(Which { id, .. }) => {
                let here = self
                    .machine
                    .blocking(move |state| state.incoming(shard, id));
                Ok(Answer::Have(here.await.map_err(told)?))
            },
            Ask::Piece {
                which: Which { id, .. },
                offset,
                crc,
                bytes,
            } => {
                if crc32fast::hash(&bytes) != crc {
                    return Err("a piece came damaged".to_owned());
                }
                let here = self
                    .machine
                    .blocking(move |state| state.receive(shard, id, offset, &bytes));
                Ok(Answer::Have(here.await.map_err(told)?))
            },
            Ask::Finish { which, vote } => self.finish(from, which, vote.into()).await,
        }
    }

    async fn finish(&self, from: NodeId, which: Which, vote: Vote<u64>) -> Result<Answer, String> {
        let shard = self.machine.shard();
        let Which { id, length, .. } = which;
        let checking = self.machine.blocking(move |state| {
            if state.incoming(shard, id)? != length {
                return Ok(None);
            }
            state.received(shard, id).map(Some)
        });
        let Some(received) = checking.await.map_err(told)? else {
            return Err("bytes of the snapshot are missing".to_owned());
        };
        let meta = snapshot_meta(&received.mark).map_err(|damage| damage.to_string())?;
        let index = received.mark.index;
        let snapshot = Snapshot {
            meta,
            snapshot: Box::new(SnapshotBody(Some(received))),
        };
        let elections = self.elections();
        match self.raft.install_full_snapshot(vote, snapshot).await {
            Ok(response) => {
                tracing::info!(
                    shard = shard.0,
                    node = from.0,
                    index,
                    "a snapshot was received"
                );
                if response.vote == vote && !self.heard(vote.leader_id, elections) {
                    return Err("the receiver stands for election".to_owned());
                }
                Ok(Answer::Done(response.vote.into()))
            },
            Err(error) => {
                self.notice_end();
                Err(error.to_string())
            },
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` wants")]
fn told(error: StateError) -> String {
    error.to_string()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| error.to_string())
}
