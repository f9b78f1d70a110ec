use super::{super::keys::Key, *};

const CLUSTER: &str = "one";
const NOW: Duration = Duration::ZERO;

fn key(id: u32) -> Key {
    Key {
        id,
        secret: [u8::try_from(id).unwrap(); 32],
    }
}

fn keys(current: u32, also: &[u32]) -> Keys {
    Keys::new(key(current), also.iter().map(|id| key(*id)).collect())
}

fn seal(node: u64, boot: u64, keys: Keys) -> Seal {
    Seal::new(CLUSTER, NodeId(node), Boot(boot), keys).unwrap()
}

fn open(seal: &mut Seal, packet: &[u8]) -> Result<Vec<u8>, Rubbish> {
    let mut packet = packet.to_vec();
    seal.open(&mut packet, NOW)
        .map(|(_, _, content)| content.to_vec())
}

#[test]
fn a_packet_opens_once() {
    let (mut one, mut two) = (seal(1, 7, keys(1, &[])), seal(2, 3, keys(1, &[])));
    let packet = one.seal(b"hello").unwrap();
    let mut opened = packet.clone();
    let (sender, boot, content) = two.open(&mut opened, NOW).unwrap();
    assert_eq!((sender, boot, content), (NodeId(1), Boot(7), &b"hello"[..]));
    assert_eq!(open(&mut two, &packet), Err(Rubbish::Replayed));
}

#[test]
fn a_change_of_any_byte_is_refused() {
    let (mut one, mut two) = (seal(1, 7, keys(1, &[])), seal(2, 3, keys(1, &[])));
    let packet = one.seal(b"hello").unwrap();
    for at in 0..packet.len() {
        let mut changed = packet.clone();
        changed[at] ^= 1;
        assert!(open(&mut two, &changed).is_err(), "byte {at}");
    }
    for length in 0..packet.len() {
        assert!(open(&mut two, &packet[..length]).is_err(), "{length} bytes");
    }
    let longer = [&packet[..], b"x"].concat();
    assert_eq!(open(&mut two, &longer), Err(Rubbish::Forged));
    assert!(two.senders.is_empty(), "rubbish left a trace");
    assert!(open(&mut two, &packet).is_ok());
}

#[test]
fn another_cluster_is_refused_even_under_the_same_key() {
    let mut other = Seal::new("two", NodeId(1), Boot(7), keys(1, &[])).unwrap();
    let mut two = seal(2, 3, keys(1, &[]));
    let mut packet = other.seal(b"hello").unwrap();
    assert_eq!(open(&mut two, &packet), Err(Rubbish::Cluster));
    // Whoever makes the tags agree has not changed what was sealed.
    packet[5..9].copy_from_slice(&tag(CLUSTER).to_be_bytes());
    assert_eq!(open(&mut two, &packet), Err(Rubbish::Forged));
}

#[test]
fn an_earlier_life_is_refused_once_a_later_one_was_heard() {
    let mut two = seal(2, 3, keys(1, &[]));
    let (mut old, mut new) = (seal(1, 7, keys(1, &[])), seal(1, 8, keys(1, &[])));
    assert!(open(&mut two, &old.seal(b"a").unwrap()).is_ok());
    assert!(open(&mut two, &new.seal(b"b").unwrap()).is_ok());
    assert_eq!(
        open(&mut two, &old.seal(b"c").unwrap()),
        Err(Rubbish::Stale)
    );
    // A boot that repeats, after a disk went back in time, is not mixed up with the first.
    let mut again = seal(1, 8, keys(1, &[]));
    assert_eq!(
        open(&mut two, &again.seal(b"d").unwrap()),
        Err(Rubbish::Stale)
    );
}

#[test]
fn a_key_is_replaced_without_a_packet_being_lost() {
    let (mut one, mut two) = (seal(1, 7, keys(1, &[])), seal(2, 3, keys(1, &[])));
    for (first, second) in [
        (keys(1, &[2]), keys(1, &[])),
        (keys(1, &[2]), keys(1, &[2])),
        (keys(2, &[1]), keys(1, &[2])),
        (keys(2, &[1]), keys(2, &[1])),
        (keys(2, &[]), keys(2, &[1])),
        (keys(2, &[]), keys(2, &[])),
    ] {
        one.set_keys(first);
        two.set_keys(second);
        let (there, back) = (one.seal(b"a").unwrap(), two.seal(b"b").unwrap());
        assert!(open(&mut two, &there).is_ok());
        assert!(open(&mut one, &back).is_ok());
    }
    let mut late = seal(3, 1, keys(1, &[]));
    assert_eq!(open(&mut two, &late.seal(b"x").unwrap()), Err(Rubbish::Key));
}

#[test]
fn senders_are_bounded_and_the_silent_one_is_forgotten() {
    let mut two = seal(2, 3, keys(1, &[]));
    for n in 0..=SENDERS_MAX as u64 {
        let mut packet = seal(n + 10, 1, keys(1, &[])).seal(b"x").unwrap();
        assert!(two.open(&mut packet, Duration::from_millis(n)).is_ok());
    }
    assert_eq!(two.senders.len(), SENDERS_MAX);
    assert!(!two.senders.contains_key(&NodeId(10)));
}
