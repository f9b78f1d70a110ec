//! Packets that must not come, or not now.

use tokio::io::AsyncWriteExt;

use super::served;
use crate::{
    close::CloseCause,
    reason::ProtocolVersion,
    testing::{greet, rest},
};

#[tokio::test(start_paused = true)]
async fn nothing_but_connect_comes_first() {
    for kind in 0_u8..16 {
        let mut served = served();
        // With the flags the type needs, and a body that would be fine.
        let flags = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
        let bytes = [kind << 4 | flags, 2, 0, 1];
        if kind == 1 {
            continue;
        }
        served.client.write_all(&bytes).await.expect("open");
        assert_eq!(rest(&mut served.client).await, b"", "type {kind}");
        served.task.await.expect("no panic");
        assert!(served.gate.events().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_only_a_server_sends_ends_the_connection() {
    use CloseCause::{MalformedPacket, ProtocolError};
    let rows: [(&[u8], u8, CloseCause); 9] = [
        (&[0x00, 0], 0x81, MalformedPacket),
        (
            b"\x10\x0E\0\x04MQTT\x05\x02\0\0\0\0\x01c",
            0x82,
            ProtocolError,
        ),
        (&[0x20, 2, 0, 0], 0x82, ProtocolError),
        (&[0x90, 3, 0, 1, 0], 0x82, ProtocolError),
        (&[0xB0, 2, 0, 1], 0x82, ProtocolError),
        (&[0xD0, 0], 0x82, ProtocolError),
        (&[0xF0, 6, 0x19, 4, 0x15, 0, 1, b'm'], 0x82, ProtocolError),
        (&[0x82, 2, 0, 0], 0x81, MalformedPacket),
        (
            &[0x30, 0xFF, 0xFF, 0xFF, 0x7F],
            0x95,
            CloseCause::PacketTooLarge,
        ),
    ];
    for (bytes, code, cause) in rows {
        let mut served = served();
        greet(&mut served.client, ProtocolVersion::V5, 0).await;
        served.client.write_all(bytes).await.expect("open");
        served.client.shutdown().await.expect("open");
        assert_eq!(
            rest(&mut served.client).await,
            [0xE0, 2, code, 0],
            "{bytes:?}"
        );
        served.task.await.expect("no panic");
        assert_eq!(served.gate.closed(), [cause]);
    }
}

#[tokio::test(start_paused = true)]
async fn before_version_5_the_connection_just_ends() {
    for bytes in [
        &[0x00, 0][..],
        &[0xF0, 0],
        &[0xE0, 1],
        &[0x20, 2, 0, 0],
        b"\x10\x0D\0\x04MQTT",
    ] {
        let mut served = served();
        greet(&mut served.client, ProtocolVersion::V311, 0).await;
        served.client.write_all(bytes).await.expect("open");
        served.client.shutdown().await.expect("open");
        assert_eq!(rest(&mut served.client).await, b"", "{bytes:?}");
        served.task.await.expect("no panic");
        assert_eq!(served.gate.closed().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_already_earned_are_written_before_the_goodbye() {
    let mut served = served();
    greet(&mut served.client, ProtocolVersion::V5, 0).await;
    served
        .client
        .write_all(b"\x32\x06\0\x01t\0\x07\0\xC0\0\x00\0")
        .await
        .expect("open");
    served.client.shutdown().await.expect("open");
    assert_eq!(
        rest(&mut served.client).await,
        b"\x40\x02\0\x07\xD0\0\xE0\x02\x81\0"
    );
    assert_eq!(served.gate.closed(), [CloseCause::MalformedPacket]);
}

#[tokio::test(start_paused = true)]
async fn goodbyes_are_told_apart() {
    let rows: [(ProtocolVersion, &[u8], CloseCause); 4] = [
        (
            ProtocolVersion::V311,
            &[0xE0, 0],
            CloseCause::ClientDisconnect,
        ),
        (
            ProtocolVersion::V5,
            &[0xE0, 0],
            CloseCause::ClientDisconnect,
        ),
        (
            ProtocolVersion::V5,
            &[0xE0, 1, 4],
            CloseCause::ClientDisconnectWithWill,
        ),
        (ProtocolVersion::V5, &[], CloseCause::ConnectionLost),
    ];
    for (version, bytes, cause) in rows {
        let mut served = served();
        greet(&mut served.client, version, 0).await;
        served.client.write_all(bytes).await.expect("open");
        // What follows a DISCONNECT is not looked at.
        served
            .client
            .write_all(&[0x00; 3][..bytes.len().min(3)])
            .await
            .expect("open");
        served.client.shutdown().await.expect("open");
        assert_eq!(rest(&mut served.client).await, b"");
        served.task.await.expect("no panic");
        assert_eq!(served.gate.closed(), [cause]);
    }
}
