//! What the client asks for.

use umbel_core::topic::Filter;

use super::{Session, reply::What};
use crate::{
    broker::{Asked, Options, metrics},
    close::{Close, CloseCause},
    outgoing::Outgoing,
    packet::{RetainHandling, SubAck, Subscribe, Subscription, Unsubscribe},
    reason::ReasonCode,
};

impl Session {
    pub(super) fn on_subscribe(
        &mut self,
        subscribe: &Subscribe,
        out: &mut Outgoing,
    ) -> Result<(), Close> {
        if subscribe.filters.len() > self.broker.config().filters_per_packet_max {
            return Err(too_many_filters());
        }
        let mut reasons = Vec::with_capacity(subscribe.filters.len());
        let mut granted = Vec::new();
        for wanted in &subscribe.filters {
            match self.judge(wanted, &granted)? {
                Ok(filter) => {
                    let asked = self.asked(filter, wanted, subscribe.subscription_id);
                    reasons.push(match asked.options.qos {
                        umbel_core::message::Qos::AtMostOnce => ReasonCode::GRANTED_QOS0,
                        umbel_core::message::Qos::AtLeastOnce => ReasonCode::GrantedQos1,
                        umbel_core::message::Qos::ExactlyOnce => ReasonCode::GrantedQos2,
                    });
                    granted.push(asked);
                },
                Err(reason) => reasons.push(reason),
            }
        }
        let (verdicts, kept) = self
            .broker
            .subscribe(&self.mailbox, self.epoch, &granted)
            .ok_or_else(super::taken_over)?;
        let ack = SubAck {
            packet_id: subscribe.packet_id,
            reasons,
            properties: None,
        };
        self.reply(What::SubAck(Box::new(ack), verdicts), kept, out)
    }

    pub(super) fn on_unsubscribe(
        &mut self,
        unsubscribe: &Unsubscribe,
        out: &mut Outgoing,
    ) -> Result<(), Close> {
        if unsubscribe.filters.len() > self.broker.config().filters_per_packet_max {
            return Err(too_many_filters());
        }
        let filters: Vec<_> = unsubscribe
            .filters
            .iter()
            .map(|text| Filter::parse(text, &self.broker.config().topics).ok())
            .collect();
        let valid: Vec<_> = filters.iter().flatten().cloned().collect();
        let (existed, forgotten) = self
            .broker
            .unsubscribe(&self.mailbox, self.epoch, &valid)
            .ok_or_else(super::taken_over)?;
        let reason = |filter: &Option<Filter>| match filter {
            Some(_) => ReasonCode::Success,
            None => ReasonCode::TopicFilterInvalid,
        };
        let ack = SubAck {
            packet_id: unsubscribe.packet_id,
            reasons: filters.iter().map(reason).collect(),
            properties: None,
        };
        self.reply(What::UnsubAck(Box::new(ack), existed), forgotten, out)
    }

    /// The filter, or why the client does not get it.
    fn judge(
        &self,
        wanted: &Subscription,
        granted: &[Asked],
    ) -> Result<Result<Filter, ReasonCode>, Close> {
        let Ok(filter) = Filter::parse(&wanted.filter, &self.broker.config().topics) else {
            return Ok(Err(ReasonCode::TopicFilterInvalid));
        };
        if filter.group().is_some() && wanted.options.no_local {
            return Err(Close::protocol_error()); // MQTT-3.8.3-4
        }
        if !self.policy.may_subscribe(&filter) {
            metrics::refused("subscribe");
            return Ok(Err(ReasonCode::NotAuthorized));
        }
        if self.mailbox.is_window() {
            return Ok(Ok(filter)); // its home knows how many there are
        }
        let held = self.state()?.subscriptions.len();
        if held + granted.len() >= self.broker.config().subscriptions_max
            && !self.mailbox.has_subscription(&filter)
        {
            return Ok(Err(ReasonCode::QuotaExceeded));
        }
        Ok(Ok(filter))
    }

    fn asked(
        &self,
        filter: Filter,
        wanted: &Subscription,
        id: Option<std::num::NonZeroU32>,
    ) -> Asked {
        let options = Options {
            qos: wanted.options.qos.min(self.broker.config().maximum_qos),
            no_local: wanted.options.no_local,
            retain_as_published: wanted.options.retain_as_published,
            id,
        };
        // shared subscriptions get no retained messages (MQTT 5.0, 4.8.2)
        let is_shared = filter.group().is_some();
        Asked {
            options,
            retained_if_known: wanted.options.retain_handling == RetainHandling::Send && !is_shared,
            retained_if_new: wanted.options.retain_handling != RetainHandling::Never && !is_shared,
            filter,
        }
    }
}

fn too_many_filters() -> Close {
    Close::because(ReasonCode::QuotaExceeded, CloseCause::QuotaExceeded)
}
