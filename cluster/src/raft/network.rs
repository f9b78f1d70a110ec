//! openraft's way to peers: each call becomes an [`Ask`] on the peer's lane.
//!
//! A node that is alone has no lanes: every target is unreachable, and says so.

use std::{error::Error, fmt, future::Future, sync::Arc, time::Duration};

use metrics::counter;
use openraft::{
    EmptyNode, Snapshot, Vote,
    error::{
        Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
    },
    network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
};
use umbel_core::ids::NodeId;

use crate::{
    metrics as names,
    raft::{
        bulk,
        lease::Lease,
        mux::{Credit, Lost, Mux},
        rpc::{Answer, Append, Ask, Place},
        types::{Id, Types},
    },
};

/// How soon an unreachable peer is tried again: at first soon, for a link that only hiccuped.
const BACKOFF: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(150),
    Duration::from_millis(200),
];

/// Makes the ways of one group.
#[derive(Clone)]
pub(crate) struct Network {
    /// The group.
    pub(crate) group: u64,
    /// The lanes, unless this node is alone.
    pub(crate) mux: Option<Arc<Mux>>,
    /// Whose answers count for it.
    pub(crate) lease: Arc<Lease>,
}

/// One peer of a group.
pub(crate) struct Peer {
    to: NodeId,
    network: Network,
}

/// There is no link to the node of that id.
#[derive(Debug)]
struct NoLink(NodeId);

impl fmt::Display for NoLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this node has no link to node {}", self.0)
    }
}

impl Error for NoLink {}

type RpcResult<T> = Result<T, RPCError<u64, EmptyNode, RaftError<u64>>>;

fn failed<E: Error>(lost: Lost) -> RPCError<u64, EmptyNode, E> {
    match lost {
        Lost::NotConnected | Lost::NoGroup | Lost::Misfit | Lost::Busy => {
            Unreachable::new(&lost).into()
        },
        Lost::Late => NetworkError::new(&lost).into(),
    }
}

impl Peer {
    async fn ask(
        &self,
        ask: &Ask,
        credit: Option<Credit>,
        option: &RPCOption,
    ) -> RpcResult<Answer> {
        let Some(mux) = &self.network.mux else {
            return Err(Unreachable::new(&NoLink(self.to)).into());
        };
        mux.ask(self.to, self.network.group, ask, credit, option.hard_ttl())
            .await
            .map_err(failed)
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Peer {
        Peer {
            to: NodeId(target),
            network: self.clone(),
        }
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<u64>> {
        let credit = request.vote.committed.then(|| Credit {
            lease: Arc::clone(&self.network.lease),
            leader: request.vote.leader_id,
        });
        let ask = Append::of(&request)
            .map(Ask::Append)
            .map_err(|error| NetworkError::new(&fmt_error(error)))?;
        let Answer::Append(appended) = self.ask(&ask, credit, &option).await? else {
            return Err(failed(Lost::Misfit));
        };
        Ok(appended.into())
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<u64>> {
        let ask = Ask::Vote {
            vote: request.vote.into(),
            last: request.last_log_id.map(Place::from),
        };
        // A vote of who may have forgotten what it promised is no vote.
        let vouched = |mux: &Arc<Mux>| mux.vouched(self.to);
        if !self.network.mux.as_ref().is_some_and(vouched) {
            return Err(Unreachable::new(&NoLink(self.to)).into());
        }
        let Answer::Vote {
            vote,
            granted,
            last,
        } = self.ask(&ask, None, &option).await?
        else {
            return Err(failed(Lost::Misfit));
        };
        Ok(VoteResponse::new(
            Vote::from(vote),
            last.map(Id::from),
            granted,
        ))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<u64>,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let Some(mux) = &self.network.mux else {
            return Err(Unreachable::new(&NoLink(self.to)).into());
        };
        let sending = bulk::send(
            Arc::clone(mux.transport()),
            self.to,
            self.network.group,
            vote,
            snapshot,
        );
        tokio::select! {
            sent = counted(sending) => sent.map_err(|lost| StreamingError::Unreachable(Unreachable::new(&fmt_error(lost)))),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    fn backoff(&self) -> Backoff {
        let last = BACKOFF.last().copied().unwrap_or_default();
        Backoff::new(BACKOFF.into_iter().chain(std::iter::repeat(last)))
    }
}

/// Counts what becomes of a snapshot.
async fn counted<T>(sending: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let sent = sending.await;
    let result = if sent.is_ok() { "done" } else { "failed" };
    counter!(names::SNAPSHOTS_SENT, "result" => result).increment(1);
    sent
}

fn fmt_error(detail: String) -> std::io::Error {
    std::io::Error::other(detail)
}
