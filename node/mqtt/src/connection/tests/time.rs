//! Silence, and clients that do not read.

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep},
};

use super::{served, served_with};
use crate::{
    close::{Close, CloseCause},
    limits::Limits,
    reason::{ProtocolVersion, ReasonCode},
    testing::{expect, greet, rest},
};

#[tokio::test(start_paused = true)]
async fn silence_ends_a_connection_after_one_and_a_half_keep_alives() {
    let mut served = served();
    greet(&mut served.client, ProtocolVersion::V5, 10).await;
    for _ in 0..5 {
        sleep(Duration::from_secs(14)).await;
        served
            .client
            .write_all(&[0xC0, 0])
            .await
            .expect("still open");
        expect(&mut served.client, &[0xD0, 0]).await;
    }
    let start = Instant::now();
    assert_eq!(rest(&mut served.client).await, [0xE0, 2, 0x8D, 0]);
    let silence = start.elapsed();
    assert!(silence >= Duration::from_secs(15), "{silence:?}");
    assert!(silence < Duration::from_millis(15_100), "{silence:?}");
    assert_eq!(served.gate.closed(), [CloseCause::KeepAliveTimeout]);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_whole_packet_do_not_count_as_life() {
    let mut served = served();
    greet(&mut served.client, ProtocolVersion::V311, 10).await;
    let start = Instant::now();
    for byte in [
        0x32, 0x10, 0, 1, b't', 0, 7, b'x', b'x', b'x', b'x', b'x', b'x', b'x', b'x', b'x',
    ] {
        if served.client.write_all(&[byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(rest(&mut served.client).await, b"");
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(served.gate.closed(), [CloseCause::KeepAliveTimeout]);
}

#[tokio::test(start_paused = true)]
async fn the_servers_keep_alive_wins() {
    for asked in [0, 65_535] {
        let mut served = served();
        served
            .gate
            .change(|script| script.server_keep_alive = Some(30));
        served
            .client
            .write_all(&crate::testing::connect(ProtocolVersion::V311, asked))
            .await
            .expect("open");
        expect(&mut served.client, &[0x20, 2, 0, 0]).await;
        let start = Instant::now();
        assert_eq!(rest(&mut served.client).await, b"");
        assert_eq!(start.elapsed().as_secs(), 45);
    }
}

#[tokio::test(start_paused = true)]
async fn without_keep_alive_silence_lasts() {
    let mut served = served();
    greet(&mut served.client, ProtocolVersion::V5, 0).await;
    sleep(Duration::from_secs(1_000_000)).await;
    served
        .client
        .write_all(&[0xC0, 0])
        .await
        .expect("still open");
    expect(&mut served.client, &[0xD0, 0]).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut_after_the_stall_limit() {
    let mut served = served_with(Limits::default(), 1024);
    greet(&mut served.client, ProtocolVersion::V5, 10).await;
    let start = Instant::now();
    for _ in 0..100 {
        served.gate.deliver(10_000);
    }
    served.task.await.expect("no panic");
    let stalled = start.elapsed();
    assert!((20..=22).contains(&stalled.as_secs()), "{stalled:?}");
    assert_eq!(served.gate.closed(), [CloseCause::WriteStalled]);
    // One turn of output was taken, the rest stayed where it was.
    let left = served.gate.change(|script| script.deliveries.len());
    assert!(left >= 90, "{left}");
}

#[tokio::test(start_paused = true)]
async fn the_session_can_end_a_connection_that_is_stalled() {
    let mut served = served_with(Limits::default(), 1024);
    greet(&mut served.client, ProtocolVersion::V5, 0).await;
    served.gate.deliver(10_000);
    sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    let close = Close::because(ReasonCode::SessionTakenOver, CloseCause::TakenOver);
    served.gate.change(|script| script.end = Some(close));
    crate::testing::eventually("closed", || !served.gate.closed().is_empty()).await;
    assert!(
        start.elapsed() < Duration::from_millis(100),
        "the session does not wait"
    );
    served.task.await.expect("no panic");
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "nor does the socket for long"
    );
    assert_eq!(served.gate.closed(), [CloseCause::TakenOver]);
}

#[tokio::test(start_paused = true)]
async fn a_client_we_do_not_listen_to_is_not_called_silent() {
    let mut served = served();
    greet(&mut served.client, ProtocolVersion::V5, 10).await;
    served.gate.change(|script| script.is_busy = true);
    sleep(Duration::from_secs(1)).await;
    served.client.write_all(&[0xC0, 0]).await.expect("open");
    sleep(Duration::from_secs(100)).await;
    assert!(served.gate.closed().is_empty());
    served.gate.change(|script| script.is_busy = false);
    expect(&mut served.client, &[0xD0, 0]).await;
}
