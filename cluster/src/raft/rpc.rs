//! What members of groups say to each other, and the way between that and openraft's types.
//!
//! Types of the wire are the plain ones below, not openraft's: its next release must not change what an older node of
//! ours reads. Entries travel in the bytes they have in the log. Each message is encoded by itself inside the frame
//! ([`super::mux`]), so that one of a newer release is refused alone.

use bytes::Bytes;
use openraft::{
    CommittedLeaderId, LogId, Vote,
    raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse},
};
use serde::{Deserialize, Serialize};

use crate::{
    raft::types::{self, Id, Types},
    wire::{self, WireError},
};

/// What is asked of a node and not of one of its groups.
pub(crate) const NO_GROUP: u64 = u64::MAX;

/// One message of a frame.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Envelope {
    /// Chosen by who asks, repeated in the answer.
    pub(crate) id: u64,
    /// The group that is asked; in an answer of no meaning.
    pub(crate) group: u64,
    /// Whether `body` is an [`Answer`].
    pub(crate) answer: bool,
    /// An encoded [`Ask`] or [`Answer`].
    pub(crate) body: Bytes,
}

/// Asked of a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// A leader's entries, or none: its heartbeat.
    Append(Append),
    /// A candidate asks for a vote.
    Vote { vote: VoteSeen, last: Option<Place> },
    /// Would a vote be given? Changes nothing.
    WouldVote { last: Option<Place> },
    /// The leader of that vote gives up its leases: whoever is asked next may have a vote at once.
    Release { vote: VoteSeen },
    /// The leader of that vote has given up, and wants the asked to follow it: campaign at once.
    TakeOver { vote: VoteSeen },
    /// Does the asked own the shard, acknowledged by a majority?
    Speaks,
    /// May the asked vote, as soon as it is a voter?
    Ready,
    /// To a node, not to a group ([`NO_GROUP`]): the newest of its lives that was met, and the one that is spoken to.
    Met { met: Option<u64>, yours: u64 },
}

/// A leader's entries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Append {
    pub(crate) vote: VoteSeen,
    pub(crate) prev: Option<Place>,
    pub(crate) commit: Option<Place>,
    /// As they are in the log.
    pub(crate) entries: Vec<Bytes>,
}

/// What a member says to an [`Ask`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To [`Ask::Append`].
    Append(Appended),
    /// To [`Ask::Vote`].
    Vote {
        vote: VoteSeen,
        granted: bool,
        last: Option<Place>,
    },
    /// To [`Ask::WouldVote`]; if not, it may be worth asking again after so many milliseconds.
    WouldVote { yes: bool, after_millis: u32 },
    /// To the other two: done, or no.
    Done(bool),
    /// The node has no such group, or it does not run.
    NoGroup,
    /// The ask is not understood.
    NotUnderstood,
}

/// What became of entries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Appended {
    All,
    UpTo(Option<Place>),
    Conflict,
    HigherVote(VoteSeen),
}

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteSeen {
    term: u64,
    node: u64,
    committed: bool,
}

/// A place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    term: u64,
    node: u64,
    index: u64,
}

impl From<Vote<u64>> for VoteSeen {
    fn from(vote: Vote<u64>) -> Self {
        Self {
            term: vote.leader_id.term,
            node: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<VoteSeen> for Vote<u64> {
    fn from(seen: VoteSeen) -> Self {
        if seen.committed {
            Self::new_committed(seen.term, seen.node)
        } else {
            Self::new(seen.term, seen.node)
        }
    }
}

impl From<Id> for Place {
    fn from(id: Id) -> Self {
        Self {
            term: id.leader_id.term,
            node: id.leader_id.node_id,
            index: id.index,
        }
    }
}

impl From<Place> for Id {
    fn from(place: Place) -> Self {
        LogId::new(CommittedLeaderId::new(place.term, place.node), place.index)
    }
}

impl Append {
    /// What openraft wants to send.
    pub(crate) fn of(request: &AppendEntriesRequest<Types>) -> Result<Self, String> {
        let entries = request.entries.iter().map(|entry| {
            types::encode_entry(entry)
                .map(Bytes::from)
                .map_err(|error| error.to_string())
        });
        Ok(Self {
            vote: request.vote.into(),
            prev: request.prev_log_id.map(Place::from),
            commit: request.leader_commit.map(Place::from),
            entries: entries.collect::<Result<_, _>>()?,
        })
    }

    /// What openraft takes. An entry of a newer release is an error: it must not be skipped.
    pub(crate) fn request(self) -> Result<AppendEntriesRequest<Types>, String> {
        let entries = self
            .entries
            .iter()
            .map(|bytes| types::decode_entry(bytes).map_err(|error| error.to_string()));
        Ok(AppendEntriesRequest {
            vote: self.vote.into(),
            prev_log_id: self.prev.map(Id::from),
            leader_commit: self.commit.map(Id::from),
            entries: entries.collect::<Result<_, _>>()?,
        })
    }
}

impl From<AppendEntriesResponse<u64>> for Appended {
    fn from(response: AppendEntriesResponse<u64>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::All,
            AppendEntriesResponse::PartialSuccess(upto) => Self::UpTo(upto.map(Place::from)),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<Appended> for AppendEntriesResponse<u64> {
    fn from(appended: Appended) -> Self {
        match appended {
            Appended::All => Self::Success,
            Appended::UpTo(upto) => Self::PartialSuccess(upto.map(Id::from)),
            Appended::Conflict => Self::Conflict,
            Appended::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

/// A candidate's request, for openraft.
pub(crate) fn vote_request(vote: VoteSeen, last: Option<Place>) -> VoteRequest<u64> {
    VoteRequest::new(vote.into(), last.map(Id::from))
}

/// openraft's answer to a candidate.
pub(crate) fn vote_answer(response: &VoteResponse<u64>) -> Answer {
    Answer::Vote {
        vote: response.vote.into(),
        granted: response.vote_granted,
        last: response.last_log_id.map(Place::from),
    }
}

/// Several envelopes in one frame.
pub(crate) fn encode_frame(envelopes: &[Envelope]) -> Bytes {
    wire::encode(&envelopes)
}

/// Reads a frame.
pub(crate) fn decode_frame(bytes: &[u8]) -> Result<Vec<Envelope>, WireError> {
    wire::decode(bytes)
}
