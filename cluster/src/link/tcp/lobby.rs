//! Who has come and not yet shown who it is: bounded in all and for each address, so that one stranger cannot keep the
//! nodes of a cluster from finding each other.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;

/// In all. A whole cluster that starts at once makes three connections of each peer.
const GUESTS_MAX: usize = 256;
/// From one address, or one network of IPv6, whose addresses a stranger has by the billion. Loopback is exempt: many nodes of one machine share it, and no stranger has it.
const GUESTS_OF_ADDRESS_MAX: usize = 32;

/// The places.
#[derive(Default)]
pub(super) struct Lobby(Mutex<Guests>);

#[derive(Default)]
struct Guests {
    all: usize,
    of: BTreeMap<IpAddr, usize>,
}

/// A place; free again when dropped.
pub(super) struct Place {
    lobby: Arc<Lobby>,
    address: IpAddr,
}

impl Lobby {
    /// A place for who comes from this address, if there is one.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = host(address);
        let mut guests = self.0.lock();
        let here = guests.of.get(&address).copied().unwrap_or_default();
        let crowded = here >= GUESTS_OF_ADDRESS_MAX && !address.is_loopback();
        if crowded || guests.all >= GUESTS_MAX {
            return None;
        }
        guests.all += 1;
        guests.of.insert(address, here + 1);
        Some(Place {
            lobby: Arc::clone(self),
            address,
        })
    }
}

/// Who is counted as one: an address of IPv4, a network (/64) of IPv6.
fn host(address: IpAddr) -> IpAddr {
    let address = address.to_canonical();
    if let IpAddr::V6(wide) = address
        && !wide.is_loopback()
    {
        let [a, b, c, d, ..] = wide.segments();
        return IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0));
    }
    address
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut guests = self.lobby.0.lock();
        guests.all = guests.all.saturating_sub(1);
        let left = guests
            .of
            .get(&self.address)
            .map_or(0, |here| here.saturating_sub(1));
        if left == 0 {
            guests.of.remove(&self.address);
        } else {
            guests.of.insert(self.address, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn one_address_cannot_take_every_place_and_gives_back_what_it_took() {
        let lobby = Arc::new(Lobby::default());
        let stranger = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
        let taken: Vec<Place> = (0..100).filter_map(|_| lobby.enter(stranger)).collect();
        assert_eq!(taken.len(), GUESTS_OF_ADDRESS_MAX);
        assert!(lobby.enter(peer).is_some());
        drop(taken);
        assert!(lobby.enter(stranger).is_some());
        assert!(lobby.0.lock().of.is_empty(), "nobody is remembered");
    }

    #[test]
    fn a_network_of_ipv6_is_one_stranger() {
        let lobby = Arc::new(Lobby::default());
        let stranger = |n| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, n));
        let taken: Vec<Place> = (0..100).filter_map(|n| lobby.enter(stranger(n))).collect();
        assert_eq!(taken.len(), GUESTS_OF_ADDRESS_MAX);
        let peer = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 3, 0, 0, 0, 1));
        let mapped = IpAddr::V6(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert!(lobby.enter(peer).is_some() && lobby.enter(mapped).is_some());
        drop(taken);
        assert!(lobby.0.lock().of.is_empty(), "nobody is remembered");
    }

    #[test]
    fn all_places_together_are_bounded() {
        let lobby = Arc::new(Lobby::default());
        let home = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let taken: Vec<Place> = (0..1000).filter_map(|_| lobby.enter(home)).collect();
        assert_eq!(taken.len(), GUESTS_MAX);
    }
}
