//! What piles up while openraft's core waits for a disk, and what becomes of a leadership that nobody ended.

use super::*;
use crate::{
    codec,
    raft::{
        group::answer::APPENDS_MAX,
        rpc::{Answer, Append, Ask},
    },
    shard::Shard,
};

fn beat_of(term: u64) -> Ask {
    Ask::Append(Append {
        vote: Vote::new_committed(term, 2).into(),
        prev: None,
        commit: None,
        entries: Vec::new(),
    })
}

/// F17, F18: a leader that is not answered sends again and again; what it sends must not pile up where nothing is taken.
#[tokio::test]
async fn a_stuck_disk_holds_a_few_appends_and_refuses_the_others_at_once() {
    let node = Node::new();
    let group = Arc::new(node.start().await);
    node.log.hold();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..APPENDS_MAX + 20 {
        asked.spawn(Arc::clone(&group).answer(NodeId(2), beat_of(99), true));
    }
    for _ in 0..20 {
        let answer = timeout(PATIENCE, asked.join_next()).await;
        let answer = answer.expect("refused at once").expect("asked").unwrap();
        assert!(matches!(answer, Answer::NoGroup), "{answer:?}");
    }
    // The disk answers again, and so does the group.
    node.log.release();
    while let Some(answer) = timeout(PATIENCE, asked.join_next())
        .await
        .expect("answered")
    {
        assert!(matches!(answer, Ok(Answer::Append(_))), "{answer:?}");
    }
    let again = Arc::clone(&group).answer(NodeId(2), beat_of(99), true);
    assert!(matches!(again.await, Answer::Append(_)));
}

/// A transfer that was dropped between giving the leadership away and ending it.
#[tokio::test]
async fn a_leadership_that_was_given_away_and_not_ended_is_ended_once() {
    let node = Node::new();
    let group = node.start().await;
    let leader = group.server.borrow().vote.leader_id;
    let now = Moment::now();
    let later = now.plus(group.config.election_min * 2);
    group.lease.yielded(leader);
    assert_eq!(
        group.look(now, |_| false),
        Act::Beat,
        "it may be on its way"
    );
    {
        let _transfer = group.fence();
        assert_eq!(group.look(later, |_| false), Act::Beat, "it is on its way");
    }
    assert_eq!(group.look(later, |_| false), Act::Beat);
    let later = later.plus(group.config.election_min * 2);
    assert_eq!(group.look(later, |_| false), Act::StepDown);
    for _ in 0..100 {
        assert_eq!(group.look(later, |_| false), Act::Wait, "once is enough");
    }
    group.step_down().await;
    let mut server = group.server.clone();
    let ended = server.wait_for(|server| server.state != ServerState::Leader);
    drop(
        timeout(PATIENCE, ended)
            .await
            .expect("ended")
            .expect("runs"),
    );
}

/// F16: a replica that does not run is on probation too when its node has forgotten something, as soon as it does run.
#[tokio::test]
async fn a_replica_that_is_down_remembers_its_probation_for_when_it_runs() {
    let node = Node::new();
    node.append(0, b"no entry".to_vec());
    let parts = node.parts(NodeId(1));
    let limits = parts.config.limits;
    let shard = Shard::start(SHARD, limits, parts, Begin::Waiting).await;
    assert!(shard.group().is_none() && shard.is_quarantined());
    assert_eq!(node.log.meta(GROUP, Meta::Probation), None);
    shard.begin_probation(&node.log).await.expect("remembered");
    let noted = node.log.meta(GROUP, Meta::Probation).expect("remembered");
    assert_eq!(codec::decode_meta("probation", &noted).ok(), Some(true));
}
