//! The same questions, asked of the other nodes. A node that does not answer is left out: what it had is lost, or it
//! answers next time.

use umbel_core::{ids::ClientId, message::Message};
use umbel_mqtt::broker::{ClientView, Kick, SubscriptionView};

use crate::port::{BoxFuture, EventStream};

/// What other nodes know of sessions and connections.
pub trait Elsewhere: Send + Sync + 'static {
    /// Whether there is no other node and never will be.
    fn is_nowhere(&self) -> bool;
    /// Their views of clients, up to `limit` from each node, in no order. A client whose connection is at one node and
    /// whose session is kept by another comes twice.
    fn clients(&self, after: Option<ClientId>, limit: usize) -> BoxFuture<'_, Vec<ClientView>>;
    /// Their views of one client.
    fn client(&self, id: ClientId) -> BoxFuture<'_, Vec<ClientView>>;
    /// The subscriptions of a session that one of them keeps.
    fn subscriptions(&self, id: ClientId) -> BoxFuture<'_, Option<Vec<SubscriptionView>>>;
    /// Ends a connection, wherever it is; false if nobody has it.
    fn kick(&self, id: ClientId, how: Kick) -> BoxFuture<'_, bool>;
    /// What happens on them from now on. Ends when it is dropped.
    fn events(&self) -> EventStream;
    /// Hands a message to a client, wherever it is connected; false if it is not.
    fn send_direct(&self, id: ClientId, message: Message) -> BoxFuture<'_, bool>;
}

/// There are no other nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nowhere;

fn now<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl Elsewhere for Nowhere {
    fn is_nowhere(&self) -> bool {
        true
    }

    fn clients(&self, _: Option<ClientId>, _: usize) -> BoxFuture<'_, Vec<ClientView>> {
        now(Vec::new())
    }

    fn client(&self, _: ClientId) -> BoxFuture<'_, Vec<ClientView>> {
        now(Vec::new())
    }

    fn subscriptions(&self, _: ClientId) -> BoxFuture<'_, Option<Vec<SubscriptionView>>> {
        now(None)
    }

    fn kick(&self, _: ClientId, _: Kick) -> BoxFuture<'_, bool> {
        now(false)
    }

    fn events(&self) -> EventStream {
        Box::pin(futures_util::stream::pending())
    }

    fn send_direct(&self, _: ClientId, _: Message) -> BoxFuture<'_, bool> {
        now(false)
    }
}

/// One view of a client out of those of several nodes: the connection of whoever has it (the latest, if a take-over is
/// on its way), the session of whoever keeps it.
pub(super) fn merged(views: impl IntoIterator<Item = ClientView>) -> Option<ClientView> {
    views.into_iter().reduce(|one, other| {
        let epoch = |view: &ClientView| view.connection.as_ref().map(|c| c.epoch);
        let (mut front, back) = if epoch(&other) > epoch(&one) {
            (other, one)
        } else {
            (one, other)
        };
        front.is_persistent |= back.is_persistent;
        front.subscriptions = front.subscriptions.max(back.subscriptions);
        front.inflight = front.inflight.max(back.inflight);
        front.queued = front.queued.max(back.queued);
        front
    })
}

#[cfg(test)]
mod tests {
    use umbel_core::{ids::SessionEpoch, time::Timestamp};
    use umbel_mqtt::broker::ConnectionView;

    use super::*;

    fn view(epoch: Option<u64>, subscriptions: usize, queued: u64) -> ClientView {
        ClientView {
            client: ClientId::parse("c").expect("an id"),
            connection: epoch.map(|epoch| ConnectionView {
                epoch: SessionEpoch(epoch),
                protocol: 5,
                clean_start: false,
                expiry_seconds: 60,
                keep_alive_seconds: 60,
                address: ([127, 0, 0, 1], 1).into(),
                listener: "mqtt".to_owned(),
                principal: "p".to_owned(),
                since: Timestamp::from_millis(0),
            }),
            is_persistent: subscriptions > 0,
            subscriptions,
            inflight: 0,
            queued,
        }
    }

    #[test]
    fn a_connection_here_and_a_session_there_are_one_client() {
        for views in [
            [view(Some(3), 0, 0), view(None, 2, 7)],
            [view(None, 2, 7), view(Some(3), 0, 0)],
            [view(Some(2), 2, 7), view(Some(3), 0, 0)],
        ] {
            let one = merged(views).expect("one");
            assert_eq!(one.connection.expect("connected").epoch, SessionEpoch(3));
            assert_eq!(
                (one.subscriptions, one.queued, one.is_persistent),
                (2, 7, true)
            );
        }
        assert!(merged([]).is_none());
    }
}
