//! What comes before a connection is open.

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep},
};

use super::{served, served_with};
use crate::{
    limits::Limits,
    reason::{ProtocolVersion, ReasonCode},
    testing::{Event, accepted, connect, expect, greet, rest},
};

#[tokio::test(start_paused = true)]
async fn each_version_opens_and_is_answered_in_its_own_form() {
    for version in [
        ProtocolVersion::V31,
        ProtocolVersion::V311,
        ProtocolVersion::V5,
    ] {
        let mut served = served();
        greet(&mut served.client, version, 60).await;
        served.client.write_all(&[0xC0, 0]).await.expect("open");
        expect(&mut served.client, &[0xD0, 0]).await;
        let Some(Event::Opened(connect)) = served.gate.events().into_iter().next() else {
            panic!("the gate was asked");
        };
        assert_eq!((connect.version, connect.keep_alive), (version, 60));
        assert_eq!(served.edge.open_connections(), 1);
        served.client.write_all(&[0xE0, 0]).await.expect("open");
        assert_eq!(rest(&mut served.client).await, b"");
        served.task.await.expect("no panic");
        assert_eq!(served.edge.open_connections(), 0);
        assert_eq!(served.edge.half_open.len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_comes_byte_by_byte_is_cut_after_its_time() {
    let mut served = served();
    let start = Instant::now();
    let bytes = connect(ProtocolVersion::V5, 60);
    for byte in bytes.iter().take(12) {
        // The pipe closes under us when time is up.
        if served.client.write_all(&[*byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(rest(&mut served.client).await, b"");
    assert!(start.elapsed() >= Duration::from_secs(10));
    assert!(served.gate.events().is_empty());
    served.task.await.expect("no panic");
    assert_eq!(served.edge.half_open.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connect_above_8_kib_is_cut_at_its_first_bytes() {
    let mut served = served();
    served
        .client
        .write_all(&[0x10, 0x80, 0x40])
        .await
        .expect("open");
    assert_eq!(
        rest(&mut served.client).await,
        b"",
        "8,192 bytes and a header are too many"
    );
    served.task.await.expect("no panic");
    assert!(served.gate.events().is_empty());
}

#[tokio::test(start_paused = true)]
async fn refusals_have_the_codes_of_their_version() {
    let reply = |bytes: Vec<u8>| async move {
        let mut served = served();
        served.client.write_all(&bytes).await.expect("open");
        let answer = rest(&mut served.client).await;
        served.task.await.expect("no panic");
        assert!(served.gate.events().is_empty(), "{bytes:?}");
        answer
    };
    let with_level = |level: u8| {
        let mut bytes = connect(ProtocolVersion::V311, 0);
        bytes[8] = level;
        bytes
    };
    assert_eq!(reply(with_level(3)).await, [0x20, 2, 0, 1]);
    assert_eq!(reply(with_level(0x84)).await, [0x20, 2, 0, 1]);
    assert_eq!(reply(with_level(6)).await, [0x20, 3, 0, 0x84, 0]);
    // A bad protocol name, and bad flags before MQTT 5: closed without a word.
    assert_eq!(
        reply(b"\x10\x0D\0\x04HTTP\x04\x02\0\0\0\x01c".to_vec()).await,
        b""
    );
    assert_eq!(
        reply(b"\x10\x0D\0\x04MQTT\x04\x03\0\0\0\x01c".to_vec()).await,
        b""
    );
    assert_eq!(reply(b"GET / HTTP/1.1\r\n\r\n".to_vec()).await, b"");
    // No identifier and no clean session.
    assert_eq!(
        reply(b"\x10\x0C\0\x04MQTT\x04\x00\0\0\0\0".to_vec()).await,
        [0x20, 2, 0, 2]
    );
    // MQTT 5: reserved flag, extended authentication.
    let reserved = b"\x10\x0E\0\x04MQTT\x05\x03\0\0\0\0\x01c".to_vec();
    assert_eq!(reply(reserved).await, [0x20, 3, 0, 0x81, 0]);
    let method = b"\x10\x12\0\x04MQTT\x05\x02\0\0\x04\x15\0\x01m\0\x01c".to_vec();
    assert_eq!(reply(method).await, [0x20, 3, 0, 0x8C, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_the_gate_refuses_is_told() {
    for (version, answer) in [
        (ProtocolVersion::V311, &[0x20, 2, 0, 5][..]),
        (ProtocolVersion::V5, &[0x20, 3, 0, 0x87, 0]),
    ] {
        let mut served = served();
        served
            .gate
            .change(|script| script.refusal = Some(ReasonCode::NotAuthorized));
        served
            .client
            .write_all(&connect(version, 0))
            .await
            .expect("open");
        assert_eq!(rest(&mut served.client).await, answer);
        served.task.await.expect("no panic");
        assert_eq!(served.edge.open_connections(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_needed_is_taken_from_who_does_nothing() {
    let limits = Limits {
        half_open_per_address_max: 1,
        ..Limits::default()
    };
    let mut idle = served_with(limits, 1024);
    sleep(Duration::from_secs(3)).await;
    let (mut client, server) = tokio::io::duplex(1024);
    let task = super::serve(&idle.edge, server);
    assert_eq!(rest(&mut idle.client).await, b"");
    idle.task.await.expect("no panic");
    greet(&mut client, ProtocolVersion::V5, 0).await;
    drop(client);
    task.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn packets_right_behind_connect_are_answered_in_order() {
    let mut served = served();
    let mut bytes = connect(ProtocolVersion::V5, 0);
    bytes.extend_from_slice(b"\x82\x07\0\x01\0\0\x01a\0\xC0\0");
    served.client.write_all(&bytes).await.expect("open");
    let answers = [
        accepted(ProtocolVersion::V5),
        b"\x90\x04\0\x01\0\0",
        b"\xD0\0",
    ]
    .concat();
    expect(&mut served.client, &answers).await;
}
