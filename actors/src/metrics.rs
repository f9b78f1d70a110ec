//! What the fleet counts. Names are constants, labels come from closed sets, ids are never labels.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use umbel_core::shadow::{Reply, Verb};

use crate::{realm::Totals, refused::Refused, remote::Answer};

/// Actors awake now.
pub const AWAKE: &str = "umbel_actors_awake";
/// Actors woken.
pub const WAKES: &str = "umbel_actors_wakes_total";
/// Actors put to sleep.
pub const SLEEPS: &str = "umbel_actors_sleeps_total";
/// Device actors that panicked.
pub const PANICS: &str = "umbel_actors_panics_total";
/// Devices in quarantine now.
pub const QUARANTINED: &str = "umbel_actors_quarantined";
/// Devices ever put in quarantine.
pub const QUARANTINES: &str = "umbel_actors_quarantines_total";
/// Commands refused, by reason.
pub const REFUSED: &str = "umbel_actors_refused_total";
/// Commands in flight now.
pub const IN_FLIGHT: &str = "umbel_actors_commands_in_flight";
/// Shadow requests answered, by verb and result.
pub const SHADOW_REQUESTS: &str = "umbel_shadow_requests_total";
/// Time from admission of a command to its answer, by kind.
pub const COMMAND_SECONDS: &str = "umbel_actors_command_seconds";
/// Clients by kind and presence.
pub const CLIENTS: &str = "umbel_fleet_clients";
/// Sessions that were opened.
pub const SESSIONS_OPENED: &str = "umbel_fleet_sessions_opened_total";
/// Sessions that took over from a connection that was still there.
pub const TAKEOVERS: &str = "umbel_fleet_takeovers_total";
/// Wills published.
pub const WILLS: &str = "umbel_fleet_wills_published_total";

/// Connections that were called lost: their gateway is gone, or does not name them.
pub const LOST: &str = "umbel_fleet_connections_lost_total";
/// Sessions that ended without a word, because their gateway does not hold the connection that was recorded: by whether
/// a `connect` of the client or a `review` of the gateway found it.
pub const PHANTOMS: &str = "umbel_fleet_phantom_sessions_total";
/// Connects that this node gave up, and whose owner has yet to look whether they were recorded.
pub const CONNECTS_IN_DOUBT: &str = "umbel_fleet_connects_in_doubt";
/// Commands of other nodes that were asked again and had been applied before.
pub const REPEATS: &str = "umbel_fleet_repeated_commands_total";
/// Commands of other nodes that are remembered, so that they are applied once.
pub const REMEMBERED: &str = "umbel_fleet_remembered_commands";
/// Requests that this node sent to owners, by verb and result.
pub const FORWARDED: &str = "umbel_fleet_forwarded_total";
/// Time from the first sending of a request to another node to its last answer.
pub const FORWARD_SECONDS: &str = "umbel_fleet_forward_seconds";
/// Requests that were sent to an owner more than once.
pub const FORWARD_RETRIES: &str = "umbel_fleet_forward_retries_total";
/// Connections that this node holds for their owners.
pub const HELD: &str = "umbel_fleet_held_connections";
/// Ends of connections that their owner has not recorded yet.
pub const ENDS_WAITING: &str = "umbel_fleet_ends_waiting";
/// Comparisons of held connections with their owner, by result.
pub const RESYNCS: &str = "umbel_fleet_resyncs_total";
/// Shards whose devices live on this node.
pub const SHARDS_SERVED: &str = "umbel_fleet_shards_served";

/// Gives every metric of this crate its text and unit.
pub fn describe() {
    describe_gauge!(AWAKE, "Device actors awake");
    describe_counter!(WAKES, "Device actors woken");
    describe_counter!(SLEEPS, "Device actors put to sleep");
    describe_counter!(PANICS, "Device actors that panicked");
    describe_gauge!(QUARANTINED, "Devices in quarantine");
    describe_counter!(QUARANTINES, "Devices put in quarantine");
    describe_counter!(REFUSED, "Commands refused, by reason");
    describe_gauge!(IN_FLIGHT, "Commands in flight");
    describe_counter!(
        SHADOW_REQUESTS,
        "Shadow requests answered, by verb and result"
    );
    describe_histogram!(
        COMMAND_SECONDS,
        Unit::Seconds,
        "Admission of a command to its answer"
    );
    describe_gauge!(CLIENTS, "Clients by kind and presence");
    describe_counter!(SESSIONS_OPENED, "Sessions opened");
    describe_counter!(TAKEOVERS, "Sessions that took over from a live connection");
    describe_counter!(WILLS, "Wills published");
    describe_counter!(LOST, "Connections called lost with their gateway");
    describe_counter!(
        PHANTOMS,
        "Sessions ended because their gateway holds no such connection, by who found it"
    );
    describe_gauge!(
        CONNECTS_IN_DOUBT,
        "Connects given up whose outcome is not known yet"
    );
    describe_counter!(REPEATS, "Commands asked again that had been applied");
    describe_gauge!(REMEMBERED, "Commands of other nodes that are remembered");
    describe_counter!(FORWARDED, "Requests sent to owners, by verb and result");
    describe_histogram!(
        FORWARD_SECONDS,
        Unit::Seconds,
        "First sending of a request to an owner to its answer"
    );
    describe_counter!(FORWARD_RETRIES, "Requests sent to an owner again");
    describe_gauge!(HELD, "Connections held for their owners");
    describe_gauge!(ENDS_WAITING, "Ends of connections not recorded yet");
    describe_counter!(RESYNCS, "Comparisons of connections with their owner");
    describe_gauge!(SHARDS_SERVED, "Shards whose devices live here");
}

/// Which command, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandKind {
    Connect,
    Disconnect,
    Shadow,
    Registry,
    Timer,
}

impl CommandKind {
    const ALL: [Self; 5] = [
        Self::Connect,
        Self::Disconnect,
        Self::Shadow,
        Self::Registry,
        Self::Timer,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
            Self::Shadow => "shadow",
            Self::Registry => "registry",
            Self::Timer => "timer",
        }
    }
}

/// Handles that are looked up once; a lookup costs twelve times an increment.
pub(crate) struct Meters {
    pub(crate) wakes: Counter,
    pub(crate) sleeps: Counter,
    pub(crate) panics: Counter,
    pub(crate) quarantines: Counter,
    pub(crate) quarantined: Gauge,
    pub(crate) sessions_opened: Counter,
    pub(crate) takeovers: Counter,
    pub(crate) wills: Counter,
    pub(crate) lost: Counter,
    /// Found by a connect, and by a review.
    pub(crate) phantoms: (Counter, Counter),
    pub(crate) repeats: Counter,
    pub(crate) remembered: Gauge,
    pub(crate) shards_served: Gauge,
    pub(crate) awake: Gauge,
    pub(crate) in_flight: Gauge,
    refused: Vec<(Refused, Counter)>,
    commands: Vec<(CommandKind, Histogram)>,
}

impl Meters {
    pub(crate) fn new() -> Self {
        let refused = Refused::ALL.map(|why| (why, counter!(REFUSED, "reason" => why.label())));
        let commands = CommandKind::ALL
            .map(|kind| (kind, histogram!(COMMAND_SECONDS, "kind" => kind.label())));
        Self {
            wakes: counter!(WAKES),
            sleeps: counter!(SLEEPS),
            panics: counter!(PANICS),
            quarantines: counter!(QUARANTINES),
            quarantined: gauge!(QUARANTINED),
            sessions_opened: counter!(SESSIONS_OPENED),
            takeovers: counter!(TAKEOVERS),
            wills: counter!(WILLS),
            lost: counter!(LOST),
            phantoms: (
                counter!(PHANTOMS, "found" => "connect"),
                counter!(PHANTOMS, "found" => "review"),
            ),
            repeats: counter!(REPEATS),
            remembered: gauge!(REMEMBERED),
            shards_served: gauge!(SHARDS_SERVED),
            awake: gauge!(AWAKE),
            in_flight: gauge!(IN_FLIGHT),
            refused: refused.into(),
            commands: commands.into(),
        }
    }

    pub(crate) fn refused(&self, why: Refused) {
        if let Some((_, counter)) = self.refused.iter().find(|(reason, _)| *reason == why) {
            counter.increment(1);
        }
    }

    pub(crate) fn answered(&self, kind: CommandKind, took: Duration) {
        if let Some((_, histogram)) = self.commands.iter().find(|(known, _)| *known == kind) {
            histogram.record(took);
        }
    }
}

/// Handles of the way between nodes.
pub(crate) struct ForwardMeters {
    pub(crate) retries: Counter,
    held: Gauge,
    ends_waiting: Gauge,
    in_doubt: Gauge,
    compared: Counter,
    not_compared: Counter,
}

impl ForwardMeters {
    pub(crate) fn new() -> Self {
        Self {
            retries: counter!(FORWARD_RETRIES),
            held: gauge!(HELD),
            ends_waiting: gauge!(ENDS_WAITING),
            in_doubt: gauge!(CONNECTS_IN_DOUBT),
            compared: counter!(RESYNCS, "result" => "complete"),
            not_compared: counter!(RESYNCS, "result" => "incomplete"),
        }
    }

    pub(crate) fn show(&self, totals: Totals) {
        let shown = |number| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        self.held.set(shown(totals.open));
        self.ends_waiting.set(shown(totals.ends));
        self.in_doubt.set(shown(totals.doubts));
    }

    pub(crate) fn compared(&self, is_complete: bool) {
        if is_complete {
            self.compared.increment(1);
        } else {
            self.not_compared.increment(1);
        }
    }
}

/// Counts a question to an owner.
pub(crate) fn count_forward(verb: &'static str, outcome: &Result<Answer, Refused>, took: Duration) {
    let result = match outcome {
        Ok(_) => "answered",
        Err(why) => why.label(),
    };
    counter!(FORWARDED, "verb" => verb, "result" => result).increment(1);
    histogram!(FORWARD_SECONDS, "verb" => verb).record(took);
}

/// Counts the answer to a shadow request.
pub(crate) fn count_shadow(verb: Verb, reply: &Reply) {
    let verb = match verb {
        Verb::Get => "get",
        Verb::Update => "update",
        Verb::Delete => "delete",
    };
    let result = match reply {
        Reply::Accepted(_) => "accepted",
        Reply::Rejected(rejection) => match rejection.error.code {
            404 => "not_found",
            409 => "conflict",
            413 => "too_large",
            429 => "throttled",
            400..=499 => "invalid",
            _ => "failed",
        },
    };
    counter!(SHADOW_REQUESTS, "verb" => verb, "result" => result).increment(1);
}
