//! Open files: the process takes as many as it may have, and keeps some from those who connect.
//!
//! Whoever runs out of files cannot open the next file of the log, and a node that cannot write its log has to end. So
//! connections are bounded by what the system gives, whatever the configuration hopes for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for log, state, snapshots, the link to each other node and what the libraries hold: a node of a cluster of ten
/// uses about a hundred.
const OWN_FILES: u64 = 256;
/// Of what is left, the part of each HTTP server, at most.
const HTTP_SHARE: u64 = 8;
const HTTP_SERVERS: u64 = 2;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// All MQTT listeners together.
    pub(super) mqtt: usize,
    /// Each HTTP server.
    pub(super) http: usize,
}

/// Raises the limit of the process as far as it may, and says what that leaves of what is wanted.
pub(super) fn make_room(wanted: Room) -> Room {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files stays as it is");
            limit.current
        },
    };
    let room = divide(files.unwrap_or(u64::MAX), wanted);
    if room.mqtt < wanted.mqtt {
        tracing::warn!(
            files,
            connections = room.mqtt,
            wanted = wanted.mqtt,
            "the limit of open files leaves room for fewer connections than mqtt.max_connections"
        );
    }
    room
}

fn divide(files: u64, wanted: Room) -> Room {
    let within = |most: u64, wanted: usize| usize::try_from(most).unwrap_or(usize::MAX).min(wanted);
    // Of very few, half.
    let others = files.saturating_sub(OWN_FILES.min(files / 2));
    let http = within((others / HTTP_SHARE).max(1), wanted.http);
    let left = others.saturating_sub(HTTP_SERVERS * http as u64);
    Room {
        mqtt: within(left.max(1), wanted.mqtt),
        http,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Room = Room {
        mqtt: 16_384,
        http: 1024,
    };

    #[test]
    fn f18_whatever_the_limit_some_files_are_kept() {
        for files in [20_000, 1 << 20, u64::MAX] {
            assert_eq!(divide(files, WANTED), WANTED);
        }
        for files in [16, 64, 400, 1024, 4096, 16_384] {
            let room = divide(files, WANTED);
            let used = (room.mqtt + 2 * room.http) as u64;
            assert!(
                used + OWN_FILES.min(files / 2) <= files,
                "{files}: {room:?}"
            );
            assert!(room.mqtt > 0 && room.http > 0);
        }
        assert_eq!(
            divide(1024, WANTED),
            Room {
                mqtt: 576,
                http: 96
            }
        );
    }
}
