//! The way to peers. A one-node cluster has none: every target is unreachable, and says so.
//!
//! The next release puts a transport behind this factory. Until then a group whose membership names another node
//! simply does not get that node's vote or acknowledgement: it stays without a leader rather than pretending.

use std::{error::Error, fmt, future::Future};

use openraft::{
    EmptyNode, Snapshot, Vote,
    error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable},
    network::{RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
};

use crate::raft::types::Types;

/// Reaches nobody.
pub(crate) struct NoPeers;

/// A peer that cannot be reached.
pub(crate) struct Peer(u64);

/// There is no link to the node of that id.
#[derive(Debug)]
struct NoLink(u64);

impl fmt::Display for NoLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this node has no link to node {}", self.0)
    }
}

impl Error for NoLink {}

impl Peer {
    fn unreachable(&self) -> Unreachable {
        Unreachable::new(&NoLink(self.0))
    }
}

impl RaftNetworkFactory<Types> for NoPeers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Peer {
        Peer(target)
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64>>> {
        Err(self.unreachable().into())
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64>>> {
        Err(self.unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote<u64>,
        _snapshot: Snapshot<Types>,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        Err(self.unreachable().into())
    }
}
