//! A command's way to the leader, and what the leader does with it.

use std::time::Duration;

use rand::Rng;
use tokio::{sync::Mutex, time::Instant};
use umbel_core::{
    cluster::{Command, Outcome, Request, RequestId, decide},
    ids::{NodeId, ShardId, Term},
};
use umbel_storage::{PeerError, Refusal, Write, crash, nodes::Reach};

use super::{
    rows,
    service::{Inner, MetaError},
    words::{Answer, Ask},
};

/// How long a command is tried: longer than an election with a node that died.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one node may take for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Before the next node is asked.
const PAUSE: Duration = Duration::from_millis(50);

/// Where commands are decided, one after the other.
#[derive(Default)]
pub(super) struct Desk(Mutex<Doubt>);

/// Whether the last decision may still be on its way: nobody waited for its outcome, or nobody knows it. The term goes on
/// over that if no majority answered for a moment only.
#[derive(Default)]
struct Doubt(bool);

/// What one attempt came to.
enum Attempt {
    Answered(Result<Outcome, MetaError>),
    /// Nothing was changed; this one may lead.
    Elsewhere(Option<NodeId>),
    /// Maybe something was changed; asking again under the same name is safe.
    Unknown,
}

impl Inner {
    /// Has a command decided by whoever leads.
    pub(super) async fn submit(&self, command: Command) -> Result<Outcome, MetaError> {
        let request = Request {
            id: RequestId(rand::rng().random()),
            command,
        };
        let until = Instant::now() + PATIENCE;
        let mut hint = None;
        let mut unknown = false;
        for turn in 0.. {
            let Some(target) = self.whom_to_ask(hint.take(), turn) else {
                tokio::time::sleep(PAUSE).await;
                if Instant::now() >= until {
                    break;
                }
                continue;
            };
            match self.attempt(target, &request).await {
                Attempt::Answered(answer) => return answer,
                Attempt::Elsewhere(leader) => hint = leader.filter(|leader| *leader != target),
                Attempt::Unknown => unknown = true,
            }
            if Instant::now() >= until {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(if unknown {
            MetaError::Unknown
        } else {
            MetaError::NoQuorum
        })
    }

    /// This node if it leads, then whoever is said to lead, then everybody in turn.
    fn whom_to_ask(&self, hint: Option<NodeId>, turn: usize) -> Option<NodeId> {
        if self.leads() {
            return Some(self.me);
        }
        let known = || {
            let owner = self.nodes.owner(ShardId::META).map(|owner| owner.node);
            owner.or_else(|| self.groups.leader(ShardId::META))
        };
        // What is known may be old: every other turn somebody else is asked.
        let known = if turn.is_multiple_of(2) {
            known()
        } else {
            None
        };
        let peers = self.transport.peers().borrow().clone();
        let up: Vec<NodeId> = peers
            .iter()
            .filter(|peer| peer.reach == Reach::Connected)
            .map(|peer| peer.node)
            .collect();
        hint.or(known)
            .filter(|node| up.contains(node))
            .or_else(|| up.get(turn / 2 % up.len().max(1)).copied())
    }

    async fn attempt(&self, target: NodeId, request: &Request) -> Attempt {
        let answer = if target == self.me {
            self.decide(request.clone()).await
        } else {
            match self
                .ask(target, &Ask::Command(request.clone()), ANSWER_WITHIN)
                .await
            {
                Ok(answer) => answer,
                Err(PeerError::Unknown(_)) => return Attempt::Unknown,
                Err(error) => {
                    tracing::debug!(%error, "command not taken");
                    return Attempt::Elsewhere(None);
                },
            }
        };
        match answer {
            Answer::Decided(decided) => Attempt::Answered(decided.map_err(MetaError::Rejected)),
            Answer::NotLeader(leader) => Attempt::Elsewhere(leader),
            Answer::Failed(why) => Attempt::Answered(Err(MetaError::Failed(why))),
            Answer::Unknown | Answer::Observed(_) | Answer::Done => Attempt::Unknown,
        }
    }

    /// Decides a command, if this node leads.
    ///
    /// All that was committed before this node's term is applied here while it has a term, and whatever is decided is
    /// decided in this turn: the map that is read is the map that is changed. The term fences what a successor did.
    pub(super) async fn decide(&self, request: Request) -> Answer {
        let mut doubt = self.desk.0.lock().await;
        let Some(term) = self.groups.term(ShardId::META) else {
            return Answer::NotLeader(self.groups.leader(ShardId::META));
        };
        if doubt.0 {
            // Behind it comes what was on its way: only then is the map the one that is changed.
            if let Err(refusal) = self.propose(&mut doubt, term, vec![rows::barrier()]).await {
                return self.refused(refusal);
            }
        }
        let map = match rows::read(self.groups.as_ref()) {
            Ok(map) => map,
            Err(error) => return Answer::Failed(error.to_string()),
        };
        let decision = match decide(&map, &request, (self.config.clock)()) {
            Ok(decision) => decision,
            Err(rejected) => return self.still(term, Answer::Decided(Err(rejected))),
        };
        if decision.rows.is_empty() {
            return self.still(term, Answer::Decided(Ok(decision.outcome)));
        }
        let writes: Result<Vec<_>, _> = decision.rows.iter().map(rows::write).collect();
        let writes = match writes {
            Ok(writes) => writes,
            Err(error) => return Answer::Failed(error.to_string()),
        };
        crash::point("meta.before");
        let proposed = self.propose(&mut doubt, term, writes).await;
        crash::point("meta.after");
        match proposed {
            Ok(()) => {
                self.refresh();
                Answer::Decided(Ok(decision.outcome))
            },
            Err(refusal) => self.refused(refusal),
        }
    }

    /// Writes in this turn. Doubted until the outcome is known, so also if this future is dropped before.
    async fn propose(
        &self,
        doubt: &mut Doubt,
        term: Term,
        writes: Vec<Write>,
    ) -> Result<(), Refusal> {
        doubt.0 = true;
        let outcome = self.groups.propose(ShardId::META, term, writes).await;
        doubt.0 = outcome == Err(Refusal::Unknown);
        outcome
    }

    fn refused(&self, refusal: Refusal) -> Answer {
        match refusal {
            Refusal::NotOwner => Answer::NotLeader(self.groups.leader(ShardId::META)),
            Refusal::Unknown => Answer::Unknown,
            Refusal::Busy | Refusal::StorageFull | Refusal::TooLarge | Refusal::Quarantined => {
                Answer::Failed(refusal.to_string())
            },
        }
    }

    /// An answer that rests on what was read holds only if this node still leads after it was made.
    fn still(&self, term: Term, answer: Answer) -> Answer {
        if self.groups.term(ShardId::META) == Some(term) {
            answer
        } else {
            Answer::NotLeader(None)
        }
    }
}
