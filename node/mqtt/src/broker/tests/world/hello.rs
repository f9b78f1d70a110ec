//! A CONNECT, to be changed before it is sent.

use std::num::NonZeroU16;

use bytes::Bytes;
use umbel_core::{message::Qos, policy::Policy};

use super::V5;
use crate::{
    packet::{Connect, Will},
    reason::ProtocolVersion,
};

pub(in super::super) struct Hello {
    pub(in super::super) name: String,
    pub(in super::super) connect: Connect,
    pub(in super::super) policy: Option<Policy>,
}

/// A CONNECT, to be changed before it is sent.
pub(in super::super) fn hello(name: &str, version: ProtocolVersion) -> Hello {
    let connect = Connect {
        version,
        clean_start: true,
        keep_alive: 60,
        client_id: name.to_owned(),
        username: None,
        password: None,
        will: None,
        session_expiry: None,
        receive_maximum: NonZeroU16::MAX,
        maximum_packet_size: None,
        topic_alias_maximum: 0,
        request_response_information: false,
        request_problem_information: true,
        authentication_method: None,
        authentication_data: None,
        user: Vec::new(),
    };
    Hello {
        name: name.to_owned(),
        connect,
        policy: None,
    }
}

impl Hello {
    /// Keeps its session: expiry for 5.0, no clean session for 3.1.1.
    pub(in super::super) fn persistent(mut self) -> Self {
        self.connect.clean_start = false;
        self.connect.session_expiry = (self.connect.version == V5).then_some(3600);
        self
    }

    pub(in super::super) fn receive_maximum(mut self, maximum: u16) -> Self {
        self.connect.receive_maximum = NonZeroU16::new(maximum).expect("not zero");
        self
    }

    pub(in super::super) fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    pub(in super::super) fn will(mut self, topic: &str, retain: bool) -> Self {
        self.connect.will = Some(Will {
            topic: topic.to_owned(),
            payload: Bytes::from_static(b"gone"),
            qos: Qos::AtLeastOnce,
            retain,
            delay: 0,
            message_expiry: None,
            properties: None,
        });
        self
    }

    pub(in super::super) fn change(mut self, change: impl FnOnce(&mut Connect)) -> Self {
        change(&mut self.connect);
        self
    }
}
