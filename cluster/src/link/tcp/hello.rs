//! The first words on a connection, after TLS: who speaks, to whom, in which versions, and in which life.
//!
//! The dialler sends a hello, the other side welcomes or refuses it. Both begin with a magic and a length that every
//! release understands; fields are only ever appended, and what a reader does not know behind them it ignores.

use bytes::{Buf, BufMut, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use umbel_core::ids::NodeId;
use umbel_storage::nodes::Boot;

use super::super::Service;

/// The versions of the link that this release speaks.
pub(super) const VERSIONS: Versions = Versions { min: 1, max: 1 };

const MAGIC: [u8; 8] = *b"umbel-lk";
/// More than any hello of any release takes.
const HELLO_BYTES_MAX: usize = 4096;

/// A range of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Versions {
    pub(super) min: u16,
    pub(super) max: u16,
}

impl Versions {
    /// The newest version both speak.
    pub(super) fn common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }

    /// Those of a hello, also one that is not understood otherwise.
    pub(super) fn peek(mut hello: &[u8]) -> Option<Self> {
        Some(Self {
            min: hello.try_get_u16_le().ok()?,
            max: hello.try_get_u16_le().ok()?,
        })
    }
}

/// One of the connections to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Lane {
    /// Raft and what leads it. Small and urgent; its silence is the peer's.
    Control = 1,
    /// What devices and users wait for.
    Work = 2,
    /// What is large.
    Bulk = 3,
}

impl Lane {
    pub(super) const ALL: [Self; 3] = [Self::Control, Self::Work, Self::Bulk];

    pub(super) fn of(service: Service) -> Self {
        match service {
            Service::Raft | Service::Control => Self::Control,
            Service::Fleet | Service::Broker | Service::Operator => Self::Work,
            Service::Bulk => Self::Bulk,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Work => "work",
            Self::Bulk => "bulk",
        }
    }
}

/// What a dialler says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) versions: Versions,
    pub(super) cluster: String,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) boot: Boot,
    /// Told by chance once for each process.
    pub(super) nonce: u64,
    pub(super) lane: Lane,
    pub(super) software: String,
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Welcome(Welcome),
    Refused {
        why: String,
        /// The dialler was removed from the cluster: no node of it will ever welcome it again.
        is_removed: bool,
    },
}

/// The dialler may speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Welcome {
    pub(super) version: u16,
    pub(super) boot: Boot,
    pub(super) nonce: u64,
    /// Requests that may be under way in each service.
    pub(super) window: u32,
    /// The dialler's disk is older than what was seen of it before.
    pub(super) regressed: bool,
    pub(super) software: String,
}

impl Hello {
    pub(super) fn encode(&self) -> Vec<u8> {
        packet(|out| {
            out.put_u16_le(self.versions.min);
            out.put_u16_le(self.versions.max);
            put_text(out, &self.cluster);
            out.put_u64_le(self.from.0);
            out.put_u64_le(self.to.0);
            out.put_u64_le(self.boot.0);
            out.put_u64_le(self.nonce);
            out.put_u8(self.lane as u8);
            put_text(out, &self.software);
        })
    }

    /// `None`: these are no such words.
    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        Some(Self {
            versions: Versions {
                min: bytes.try_get_u16_le().ok()?,
                max: bytes.try_get_u16_le().ok()?,
            },
            cluster: get_text(&mut bytes)?,
            from: NodeId(bytes.try_get_u64_le().ok()?),
            to: NodeId(bytes.try_get_u64_le().ok()?),
            boot: Boot(bytes.try_get_u64_le().ok()?),
            nonce: bytes.try_get_u64_le().ok()?,
            lane: {
                let lane = bytes.try_get_u8().ok()?;
                Lane::ALL.into_iter().find(|known| *known as u8 == lane)?
            },
            software: get_text(&mut bytes)?,
        })
    }
}

impl Reply {
    pub(super) fn encode(&self) -> Vec<u8> {
        packet(|out| match self {
            Self::Welcome(welcome) => {
                out.put_u8(1);
                out.put_u16_le(welcome.version);
                out.put_u64_le(welcome.boot.0);
                out.put_u64_le(welcome.nonce);
                out.put_u32_le(welcome.window);
                out.put_u8(welcome.regressed.into());
                put_text(out, &welcome.software);
            },
            Self::Refused { why, is_removed } => {
                out.put_u8(0);
                put_text(out, why);
                out.put_u8((*is_removed).into());
            },
        })
    }

    /// `None`: these are no such words.
    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        match bytes.try_get_u8().ok()? {
            0 => Some(Self::Refused {
                why: get_text(&mut bytes)?,
                // An older release does not say it.
                is_removed: bytes.try_get_u8().is_ok_and(|flag| flag != 0),
            }),
            1 => Some(Self::Welcome(Welcome {
                version: bytes.try_get_u16_le().ok()?,
                boot: Boot(bytes.try_get_u64_le().ok()?),
                nonce: bytes.try_get_u64_le().ok()?,
                window: bytes.try_get_u32_le().ok()?,
                regressed: bytes.try_get_u8().ok()? != 0,
                software: get_text(&mut bytes)?,
            })),
            _ => None,
        }
    }
}

/// Reads one packet: `None` if what comes is not one.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<Bytes>> {
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic).await?;
    if magic != MAGIC {
        return Ok(None);
    }
    let length = usize::from(from.read_u16_le().await?);
    if length > HELLO_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok(Some(bytes.into()))
}

/// Writes one packet.
pub(super) async fn write(
    into: &mut (impl AsyncWrite + Unpin),
    packet: &[u8],
) -> std::io::Result<()> {
    into.write_all(packet).await?;
    into.flush().await
}

fn packet(fields: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::new();
    fields(&mut body);
    let mut bytes = MAGIC.to_vec();
    bytes.put_u16_le(u16::try_from(body.len()).unwrap_or(u16::MAX));
    bytes.extend_from_slice(&body);
    bytes
}

/// Texts are names and sentences; what is longer than a length of one byte can say is cut.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(usize::from(u8::MAX));
    let text = text.get(..end).unwrap_or_default();
    out.put_u8(u8::try_from(text.len()).unwrap_or_default());
    out.extend_from_slice(text.as_bytes());
}

fn get_text(bytes: &mut Bytes) -> Option<String> {
    let length = usize::from(bytes.try_get_u8().ok()?);
    if bytes.len() < length {
        return None;
    }
    String::from_utf8(bytes.split_to(length).to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Hello {
        Hello {
            versions: VERSIONS,
            cluster: "house".into(),
            from: NodeId(1),
            to: NodeId(2),
            boot: Boot(3),
            nonce: 4,
            lane: Lane::Bulk,
            software: "0.1.0".into(),
        }
    }

    fn welcome() -> Reply {
        Reply::Welcome(Welcome {
            version: 1,
            boot: Boot(9),
            nonce: 8,
            window: 1024,
            regressed: true,
            software: "0.2.0".into(),
        })
    }

    async fn body(packet: Vec<u8>) -> Bytes {
        read(&mut packet.as_slice()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn words_come_back_and_what_a_newer_release_appends_is_ignored() {
        let refused = |is_removed| Reply::Refused {
            why: "w".repeat(255),
            is_removed,
        };
        for more in [&[][..], b"newer"] {
            let mut bytes = body(hello().encode()).await.to_vec();
            bytes.extend_from_slice(more);
            assert_eq!(Hello::decode(bytes.into()), Some(hello()));
            let mut bytes = body(welcome().encode()).await.to_vec();
            bytes.extend_from_slice(more);
            assert_eq!(Reply::decode(bytes.into()), Some(welcome()));
        }
        for is_removed in [false, true] {
            let long = Reply::Refused {
                why: "w".repeat(400),
                is_removed,
            };
            let bytes = body(long.encode()).await;
            assert_eq!(
                Reply::decode(bytes.clone()),
                Some(refused(is_removed)),
                "cut"
            );
            let older = bytes.slice(..bytes.len() - 1);
            assert_eq!(Reply::decode(older), Some(refused(false)), "not said");
        }
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        let range = |min, max| Versions { min, max };
        assert_eq!(range(1, 1).common(range(1, 2)), Some(1));
        assert_eq!(range(2, 3).common(range(1, 2)), Some(2));
        assert_eq!(range(2, 3).common(range(2, 7)), Some(3));
        assert_eq!(range(3, 4).common(range(1, 2)), None);
        assert_eq!(range(1, 2).common(range(3, 4)), None);
    }

    proptest! {
        #[test]
        fn rubbish_is_nothing_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            let bytes = Bytes::from(bytes);
            drop(Hello::decode(bytes.clone()));
            drop(Reply::decode(bytes));
        }
    }
}
