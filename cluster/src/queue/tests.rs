use umbel_storage::{Receipt, Table};

use super::*;

fn limits() -> Limits {
    Limits {
        queue_commands_max: 4,
        queue_bytes_max: 1000,
        batch_commands_max: 3,
        batch_bytes_max: 100,
        command_bytes_max: 1000,
    }
}

fn proposal(name: &str, term: u64, weight: usize) -> Proposal {
    let (answer, receipt) = Receipt::pending();
    drop(receipt);
    let writes = vec![Write::delete(Table::Device, name)];
    Proposal {
        term: Term(term),
        writes,
        weight,
        answer,
        since: Instant::now(),
    }
}

fn names(batch: &[Proposal]) -> Vec<String> {
    batch
        .iter()
        .map(|p| String::from_utf8(p.writes[0].key.clone()).expect("text"))
        .collect()
}

#[tokio::test]
async fn a_batch_holds_what_waits_in_order_up_to_its_bounds() {
    let queue = Queue::new(limits());
    for name in ["a", "b", "c", "d"] {
        queue.push(proposal(name, 1, 10)).expect("room");
    }
    assert_eq!(names(&queue.take().await.expect("batch")), ["a", "b", "c"]);
    assert_eq!(names(&queue.take().await.expect("batch")), ["d"]);
}

#[tokio::test]
async fn a_batch_is_of_one_term() {
    let queue = Queue::new(limits());
    queue.push(proposal("a", 1, 10)).expect("room");
    queue.push(proposal("b", 2, 10)).expect("room");
    assert_eq!(names(&queue.take().await.expect("batch")), ["a"]);
    assert_eq!(names(&queue.take().await.expect("batch")), ["b"]);
}

#[tokio::test]
async fn a_command_above_the_size_of_a_batch_goes_alone() {
    let queue = Queue::new(limits());
    queue.push(proposal("a", 1, 10)).expect("room");
    queue.push(proposal("big", 1, 500)).expect("room");
    queue.push(proposal("b", 1, 10)).expect("room");
    assert_eq!(names(&queue.take().await.expect("batch")), ["a"]);
    assert_eq!(names(&queue.take().await.expect("batch")), ["big"]);
    assert_eq!(names(&queue.take().await.expect("batch")), ["b"]);
}

#[tokio::test]
async fn a_full_queue_answers_at_once_and_recovers() {
    let queue = Queue::new(limits());
    for name in ["a", "b", "c", "d"] {
        queue.push(proposal(name, 1, 10)).expect("room");
    }
    assert_eq!(queue.push(proposal("e", 1, 10)), Err(Refusal::Busy));
    drop(queue.take().await);
    queue.push(proposal("big", 1, 980)).expect("room");
    assert_eq!(
        queue.push(proposal("f", 1, 20)),
        Err(Refusal::Busy),
        "bytes are bounded too"
    );
}

#[tokio::test]
async fn a_closed_queue_serves_what_waits_and_takes_no_more() {
    let queue = Queue::new(limits());
    queue.push(proposal("a", 1, 10)).expect("room");
    queue.close();
    assert_eq!(queue.push(proposal("b", 1, 10)), Err(Refusal::Unknown));
    assert!(queue.take().await.is_some());
    assert!(queue.take().await.is_none());
}
