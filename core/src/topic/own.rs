//! Topics that belong to one device, and the filters with which a device looks at its own.
//!
//! A fleet of a million devices holds a million filters for its own topics. Nobody but the owner of a device has to know
//! them: what is published to a topic of a device goes by the owner, which knows where the device is.

use super::filter::Filter;
use crate::ids::{ClientId, DeviceId};

/// What stands before the device's id in its topics.
const ROOTS: [&str; 2] = ["$aws/things/", "umbel/devices/"];

/// The device a topic belongs to: `$aws/things/{id}` and `umbel/devices/{id}`, and what is below them.
pub fn device_scope(topic: &str) -> Option<DeviceId> {
    DeviceId::parse(scope_of(topic)?).ok()
}

/// The level at the place of the id.
fn scope_of(topic: &str) -> Option<&str> {
    let rest = ROOTS.iter().find_map(|root| topic.strip_prefix(root))?;
    Some(rest.split_once('/').map_or(rest, |(id, _)| id))
}

impl Filter {
    /// Whether every topic that matches belongs to the device of this client. A shared filter never is: members of its
    /// group may be other clients.
    pub fn is_own(&self, client: &ClientId) -> bool {
        self.group().is_none()
            && scope_of(self.pattern()) == Some(client.as_str())
            && client.as_device().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::Limits;

    fn scope(topic: &str) -> Option<String> {
        device_scope(topic).map(String::from)
    }

    fn is_own(filter: &str, client: &str) -> bool {
        let filter = Filter::parse(filter, &Limits::default()).expect("a filter");
        filter.is_own(&ClientId::parse(client).expect("an id"))
    }

    #[test]
    fn topics_of_a_device_name_it_in_their_third_level() {
        for topic in [
            "$aws/things/d-1",
            "$aws/things/d-1/",
            "$aws/things/d-1/shadow/update/delta",
            "umbel/devices/d-1/telemetry",
            "umbel/devices/d-1",
        ] {
            assert_eq!(scope(topic).as_deref(), Some("d-1"), "{topic}");
        }
        for topic in [
            "$aws/things",
            "$aws/things/",
            "$aws/things//shadow",
            "$aws/things/a b/shadow",
            "$aws/events/presence/connected/d-1",
            "umbel/device/d-1/x",
            "x/$aws/things/d-1",
            "d-1",
        ] {
            assert_eq!(scope(topic), None, "{topic}");
        }
    }

    #[test]
    fn a_filter_is_a_clients_own_if_nothing_of_another_device_can_match() {
        for filter in [
            "$aws/things/d/shadow/update/delta",
            "$aws/things/d/#",
            "$aws/things/d/shadow/+/accepted",
            "umbel/devices/d/+",
            "umbel/devices/d",
        ] {
            assert!(is_own(filter, "d"), "{filter}");
            assert!(!is_own(filter, "e"), "{filter}");
            assert!(!is_own(&format!("$share/g/{filter}"), "d"), "{filter}");
        }
        for filter in [
            "$aws/things/+/shadow",
            "$aws/things/#",
            "#",
            "+/devices/d/x",
            "d/x",
        ] {
            assert!(!is_own(filter, "d"), "{filter}");
        }
        assert!(
            !is_own("umbel/devices/a b/x", "a b"),
            "no device has this id"
        );
    }

    #[test]
    fn what_matches_an_own_filter_is_scoped_to_its_device() {
        let filters = ["$aws/things/d/#", "umbel/devices/d/+", "umbel/devices/d/#"];
        let topics = [
            "$aws/things/d",
            "$aws/things/d/a/b",
            "umbel/devices/d",
            "umbel/devices/d/x",
        ];
        let mut compared = 0;
        for (filter, topic) in filters.iter().flat_map(|f| topics.map(|t| (*f, t))) {
            let filter = Filter::parse(filter, &Limits::default()).expect("a filter");
            if filter.matches(topic) {
                compared += 1;
                assert_eq!(scope(topic).as_deref(), Some("d"), "{filter} {topic}");
            }
        }
        assert!(compared >= 5, "{compared}");
    }
}
