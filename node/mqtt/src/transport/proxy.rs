//! PROXY protocol, version 2 (HAProxy's document of that name, 2.2): who really connects, said by a load balancer.
//!
//! On a listener that expects it every connection has to start with it: a header that may be left out is one that
//! anybody may forge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Longest address part taken, extensions included. HAProxy sends a few hundred bytes at most.
const ADDRESS_BYTES_MAX: usize = 1_024;

const FAMILY_IPV4: u8 = 0x1;
const FAMILY_IPV6: u8 = 0x2;
const TRANSPORT_STREAM: u8 = 0x1;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// A connection on behalf of this address.
    Proxied(SocketAddr),
    /// The balancer's own connection, as for a health check, or one whose source it does not tell.
    Local,
}

/// Why a header is refused.
#[derive(Debug, Error)]
pub(crate) enum ProxyError {
    #[error("connection ended within the proxy header")]
    Io(#[source] std::io::Error),
    #[error("no proxy protocol v2 header")]
    Signature,
    #[error("proxy protocol version or command is not supported")]
    Command,
    #[error("proxy header is longer than {ADDRESS_BYTES_MAX} bytes")]
    TooLong,
    #[error("proxy header is shorter than its address")]
    TooShort,
    #[error("proxy header holds no stream address")]
    Family,
}

/// Reads a header, and not a byte more.
pub(crate) async fn read_header<S: AsyncRead + Unpin>(
    stream: &mut S,
) -> Result<Header, ProxyError> {
    let mut signature = [0; SIGNATURE.len()];
    stream
        .read_exact(&mut signature)
        .await
        .map_err(ProxyError::Io)?;
    if signature != SIGNATURE {
        return Err(ProxyError::Signature);
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.map_err(ProxyError::Io)?;
    let (command, len) = parse_head(head)?;
    let mut rest = [0; ADDRESS_BYTES_MAX];
    let rest = rest.get_mut(..len).ok_or(ProxyError::TooLong)?;
    stream.read_exact(rest).await.map_err(ProxyError::Io)?;
    match command {
        Command::Local => Ok(Header::Local),
        Command::Proxy { family } => parse_address(family, rest),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Local,
    Proxy { family: u8 },
}

fn parse_head([command, family, high, low]: [u8; 4]) -> Result<(Command, usize), ProxyError> {
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > ADDRESS_BYTES_MAX {
        return Err(ProxyError::TooLong);
    }
    let command = match command {
        0x20 => Command::Local,
        0x21 => Command::Proxy { family },
        _ => return Err(ProxyError::Command),
    };
    Ok((command, len))
}

fn parse_address(family: u8, bytes: &[u8]) -> Result<Header, ProxyError> {
    if family == 0 {
        return Ok(Header::Local); // UNSPEC: the balancer does not know
    }
    if family & 0x0F != TRANSPORT_STREAM {
        return Err(ProxyError::Family);
    }
    let (source, port) = match family >> 4 {
        FAMILY_IPV4 => {
            let (source, rest) = take::<4>(bytes)?;
            let (_destination, rest) = take::<4>(rest)?;
            (IpAddr::V4(Ipv4Addr::from(source)), ports(rest)?)
        },
        FAMILY_IPV6 => {
            let (source, rest) = take::<16>(bytes)?;
            let (_destination, rest) = take::<16>(rest)?;
            (IpAddr::V6(Ipv6Addr::from(source)), ports(rest)?)
        },
        _ => return Err(ProxyError::Family),
    };
    Ok(Header::Proxied(SocketAddr::new(
        source.to_canonical(),
        port,
    )))
}

fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), ProxyError> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or(ProxyError::TooShort)?;
    Ok((*taken, rest))
}

/// The source port; the destination's has to be there, too.
fn ports(bytes: &[u8]) -> Result<u16, ProxyError> {
    let (source, rest) = take::<2>(bytes)?;
    take::<2>(rest)?;
    Ok(u16::from_be_bytes(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, address: &[u8]) -> Vec<u8> {
        let len = u16::try_from(address.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, address].concat()
    }

    const V4: [u8; 12] = [10, 1, 2, 3, 10, 0, 0, 1, 0x12, 0x34, 0x07, 0x5B];

    async fn read(bytes: &[u8]) -> Result<(Header, Vec<u8>), ProxyError> {
        let mut rest = bytes;
        let header = read_header(&mut rest).await?;
        Ok((header, rest.to_vec()))
    }

    #[tokio::test]
    async fn addresses_of_both_families_are_read_and_nothing_after_them() {
        let with_extension = [&V4[..], &[0x04, 0, 1, 9]].concat();
        let bytes = [header(0x21, 0x11, &with_extension), b"MQTT".to_vec()].concat();
        let (header_read, rest) = read(&bytes).await.expect("valid");
        assert_eq!(
            header_read,
            Header::Proxied("10.1.2.3:4660".parse().expect("an address"))
        );
        assert_eq!(rest, b"MQTT");

        let mut v6 = [0; 36];
        v6[15] = 1;
        v6[33] = 80;
        let (header_read, _) = read(&header(0x21, 0x21, &v6)).await.expect("valid");
        assert_eq!(
            header_read,
            Header::Proxied("[::1]:80".parse().expect("an address"))
        );
    }

    #[tokio::test]
    async fn health_checks_and_unknown_sources_are_local() {
        for bytes in [
            header(0x20, 0x00, &[]),
            header(0x20, 0x11, &V4),
            header(0x21, 0x00, &[1]),
        ] {
            assert_eq!(read(&bytes).await.expect("valid").0, Header::Local);
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let mut forged = header(0x21, 0x11, &V4);
        forged[3] = b'X';
        let too_long = [&SIGNATURE[..], &[0x21, 0x11, 0xFF, 0xFF]].concat();
        let bad = [
            forged,
            b"PROXY TCP4 10.1.2.3 10.0.0.1 1 2\r\n".to_vec(),
            vec![
                0x10, 0x0C, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 0, 0, 0, 0,
            ],
            header(0x11, 0x11, &V4),
            header(0x22, 0x11, &V4),
            header(0x21, 0x12, &V4),
            header(0x21, 0x31, &[0; 216]),
            header(0x21, 0x11, &V4[..11]),
            header(0x21, 0x21, &V4),
            too_long,
            header(0x21, 0x11, &V4)[..20].to_vec(),
            SIGNATURE.to_vec(),
            Vec::new(),
        ];
        for bytes in bad {
            assert!(read(&bytes).await.is_err(), "{bytes:?}");
        }
    }
}
