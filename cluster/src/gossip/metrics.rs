//! Names of the metrics of gossip.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use super::{notice::Noticed, seal::Rubbish};

/// Packets, by `direction`: in (opened), out.
pub const PACKETS: &str = "umbel_gossip_packets_total";
/// Packets that changed nothing, by `reason`.
pub const REFUSED: &str = "umbel_gossip_refused_total";
/// Members of the cluster as gossip sees them, this node not counted, by `state`: alive, down.
pub const MEMBERS: &str = "umbel_gossip_members";
/// Changes of members, by `kind`: up, down, again (a new life or a return), renewed (this node was taken for dead),
/// doubted (somebody who had just returned called others dead and was not believed).
pub const NOTICES: &str = "umbel_gossip_notices_total";

/// Says what each metric means.
pub fn describe() {
    describe_counter!(PACKETS, "Gossip packets, by direction");
    describe_counter!(
        REFUSED,
        "Gossip packets that were refused and changed nothing, by reason"
    );
    describe_gauge!(MEMBERS, "Other nodes as gossip sees them, by state");
    describe_counter!(NOTICES, "Changes of membership seen by gossip, by kind");
}

/// The handles.
pub(super) struct Meters {
    packets_in: Counter,
    packets_out: Counter,
    refused: [(Rubbish, Counter); Rubbish::ALL.len()],
    notices: [(Noticed, Counter); Noticed::ALL.len()],
    alive: Gauge,
    down: Gauge,
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            packets_in: counter!(PACKETS, "direction" => "in"),
            packets_out: counter!(PACKETS, "direction" => "out"),
            refused: Rubbish::ALL.map(|why| (why, counter!(REFUSED, "reason" => why.name()))),
            notices: Noticed::ALL.map(|what| (what, counter!(NOTICES, "kind" => what.name()))),
            alive: gauge!(MEMBERS, "state" => "alive"),
            down: gauge!(MEMBERS, "state" => "down"),
        }
    }

    pub(super) fn received(&self, outcome: Result<(), Rubbish>) {
        match outcome {
            Ok(()) => self.packets_in.increment(1),
            Err(why) => {
                for (_, counter) in self.refused.iter().filter(|(reason, _)| *reason == why) {
                    counter.increment(1);
                }
            },
        }
    }

    pub(super) fn sent(&self) {
        self.packets_out.increment(1);
    }

    pub(super) fn noticed(&self, what: Noticed) {
        for (_, counter) in self.notices.iter().filter(|(kind, _)| *kind == what) {
            counter.increment(1);
        }
    }

    pub(super) fn members(&self, alive: usize, down: usize) {
        let count = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        self.alive.set(count(alive));
        self.down.set(count(down));
    }
}
