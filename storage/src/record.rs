//! Records of devices and shadows as they are stored, behind a format byte.
//!
//! `core` keeps its record types fit for storage (texts, numbers, enums without free JSON), so a format is their bincode
//! encoding as it was when the format was made: the golden samples below pin it. A change of those types that breaks a
//! sample is a new format, and [`decode_device`] and [`decode_shadow`] get a step from the one before. The rows of
//! the broker (subscriptions, queues, retained) follow the same rule in the broker.

mod before;

use umbel_core::{device::DeviceRecord, shadow::StoredShadow};

use crate::codec::{self, CodecError};

/// Format of a stored client record: 2 since sessions know their gateway.
const DEVICE: u8 = 2;
/// The one before, which is read and no longer written.
const DEVICE_1: u8 = 1;
/// Format of a stored shadow.
const SHADOW: u8 = 1;

/// A client record as bytes.
pub fn encode_device(record: &DeviceRecord) -> Result<Vec<u8>, CodecError> {
    codec::encode(DEVICE, record)
}

/// The client record of bytes.
pub fn decode_device(bytes: &[u8]) -> Result<DeviceRecord, CodecError> {
    match codec::format_of(bytes)? {
        (DEVICE, body) => codec::decode_body(body),
        (DEVICE_1, body) => codec::decode_body::<before::DeviceRecord1>(body).map(Into::into),
        (format, _) => Err(CodecError::Format(format)),
    }
}

/// A shadow as bytes.
pub fn encode_shadow(shadow: &StoredShadow) -> Result<Vec<u8>, CodecError> {
    codec::encode(SHADOW, shadow)
}

/// The shadow of bytes.
pub fn decode_shadow(bytes: &[u8]) -> Result<StoredShadow, CodecError> {
    match codec::format_of(bytes)? {
        (SHADOW, body) => codec::decode_body(body),
        (format, _) => Err(CodecError::Format(format)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use umbel_core::{
        device::{
            Attributes, DisconnectReason, Evidence, Flaps, Kind, LastError, Link, PendingWill,
            Presence, Reason, Session, VersionNumber, Will,
        },
        ids::{ClientId, NodeId, SessionEpoch},
        message::{Message, Properties, Qos},
        shadow::{StoredDocument, StoredSection},
        time::Timestamp,
    };

    use super::*;

    const DEVICE_SAMPLE_1: &str = concat!(
        "01000103050c01fbe80304000007010301fbe80301070005003c01010174036279650101010163fbe8030001",
        "01010001017201017801016101620501091e0170033a3a3103746c73fbe8030302fbe8030106017403627965",
        "0101010163fbe80300010101000101720101780101610162050109fbe80300010363616d000001016b017600",
        "02fbe80301fbe80301fbe803016504",
    );
    const DEVICE_SAMPLE_2: &str = concat!(
        "02000103050c01fbe80304000007010301fbe80301070005003c01010174036279650101010163fbe8030001",
        "01010001017201017801016101620501091e0170033a3a3103746c73fbe8030302fbe80303fb2c0101060174",
        "036279650101010163fbe80300010101000101720101780101610162050109fbe80300010363616d00000101",
        "6b01760002fbe80301fbe80301fbe803016504",
    );
    const SHADOW_SAMPLE: &str = "010cfbe80301010f7b2261223a312c2262223a2278227d0201fb2c0100";
    const AT: Timestamp = Timestamp::from_millis(1_000);

    fn will() -> Will {
        let message = Message {
            topic: "t".into(),
            payload: Bytes::from_static(b"bye"),
            qos: Qos::AtLeastOnce,
            retain: true,
            publisher: Some(ClientId::parse("c").expect("valid")),
            received_at: AT,
            expires_at: None,
            properties: Some(Box::new(Properties {
                payload_is_utf8: Some(true),
                content_type: None,
                response_topic: Some("r".into()),
                correlation_data: Some(Bytes::from_static(b"x")),
                user: vec![("a".into(), "b".into())],
            })),
        };
        Will {
            message,
            delay: 5,
            expiry: Some(9),
        }
    }

    fn device() -> DeviceRecord {
        DeviceRecord {
            kind: Kind::Device,
            listed: true,
            presence: Presence::Offline,
            reason: Reason::Disconnected(DisconnectReason::ApiInitiated { prevent_will: true }),
            since: AT,
            evidence: Evidence::ConnectionClosed,
            flaps: Flaps::default(),
            epoch: SessionEpoch(7),
            version_number: Some(VersionNumber {
                value: 3,
                until: Some(AT),
            }),
            session: Some(Session {
                epoch: SessionEpoch(7),
                kind: Kind::Device,
                protocol: 5,
                clean: false,
                expiry: 60,
                durable: true,
                will: Some(will()),
                keep_alive: 30,
                principal: "p".into(),
                ip: "::1".into(),
                listener: "tls".into(),
                connected_at: AT,
                version_number: 3,
                link: Link::Down { since: AT },
                gateway: NodeId(3),
                gateway_boot: 300,
            }),
            pending_wills: vec![PendingWill {
                epoch: SessionEpoch(6),
                will: will(),
                due: AT,
                sent: false,
            }],
            attributes: Attributes {
                device_type: Some("cam".into()),
                site: None,
                region: None,
                tags: [("k".to_owned(), "v".to_owned())].into(),
                free: [].into(),
            },
            revision: 2,
            created_at: AT,
            last_seen: Some(AT),
            last_error: Some(LastError {
                at: AT,
                message: "e".into(),
            }),
            config_version: 4,
        }
    }

    fn shadow() -> StoredShadow {
        let section = |state: &str| StoredSection {
            state: state.into(),
            stamps: vec![1, 300],
        };
        StoredShadow {
            version: 12,
            updated_at: AT,
            document: Some(StoredDocument {
                desired: Some(section(r#"{"a":1,"b":"x"}"#)),
                reported: None,
            }),
        }
    }

    /// As format 1 knew it.
    fn device_1() -> DeviceRecord {
        let mut device = device();
        if let Some(session) = &mut device.session {
            session.gateway = NodeId(0);
            session.gateway_boot = 0;
        }
        device
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
        (0..text.len()).step_by(2).map(digit).collect()
    }

    fn hex(bytes: &[u8]) -> String {
        let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.concat()
    }

    #[test]
    fn golden_sample_of_a_device_in_format_2() {
        let bytes = encode_device(&device()).expect("small");
        assert_eq!(hex(&bytes), DEVICE_SAMPLE_2);
        assert_eq!(decode_device(&bytes), Ok(device()));
        assert_eq!(decode_device(&[3]), Err(CodecError::Format(3)));
    }

    #[test]
    fn golden_sample_of_a_device_in_format_1_has_no_gateway() {
        assert_eq!(decode_device(&unhex(DEVICE_SAMPLE_1)), Ok(device_1()));
    }

    #[test]
    fn golden_sample_of_a_shadow_in_format_1() {
        let bytes = encode_shadow(&shadow()).expect("small");
        assert_eq!(hex(&bytes), SHADOW_SAMPLE);
        assert_eq!(decode_shadow(&bytes), Ok(shadow()));
        assert_eq!(decode_shadow(&[2]), Err(CodecError::Format(2)));
    }

    #[test]
    fn a_shorter_record_is_never_another_record() {
        for bytes in [encode_device(&device()), encode_shadow(&shadow())] {
            let bytes = bytes.expect("small");
            for length in 0..bytes.len() {
                assert!(decode_device(&bytes[..length]).is_err(), "length {length}");
                assert!(decode_shadow(&bytes[..length]).is_err(), "length {length}");
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>, format in 1_u8..=2) {
            bytes.insert(0, format);
            drop(decode_device(&bytes));
            drop(decode_shadow(&bytes));
        }
    }
}
