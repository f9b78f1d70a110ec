//! Who gets what is said over [`Service::Control`]: the first byte of a body says.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use umbel_core::ids::NodeId;

use crate::link::{BoxFuture, Handler, Service, Transport};

/// Whose a body is. The number is part of the wire format and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Who owns which shard ([`crate::Owners`]).
    Ownership = 1,
    /// Membership and the shard map.
    Meta = 2,
}

/// The door of [`Service::Control`] on this node.
#[derive(Default)]
pub struct Control {
    ownership: OnceLock<Arc<dyn Handler>>,
    meta: OnceLock<Arc<dyn Handler>>,
}

impl Control {
    /// Opens the door. What comes for a kind nobody has registered for is refused.
    pub fn start(transport: &dyn Transport) -> Arc<Self> {
        let control = Arc::new(Self::default());
        transport.serve(Service::Control, Arc::clone(&control) as Arc<dyn Handler>);
        control
    }

    /// Gives a kind its handler, which sees bodies without the first byte. Only the first call counts.
    pub fn register(&self, kind: Kind, handler: Arc<dyn Handler>) {
        let slot = match kind {
            Kind::Ownership => &self.ownership,
            Kind::Meta => &self.meta,
        };
        if slot.set(handler).is_err() {
            tracing::debug!(?kind, "this kind of control message has a handler already");
        }
    }

    /// A body as it has to be sent.
    pub fn frame(kind: Kind, body: &[u8]) -> Bytes {
        let mut framed = BytesMut::with_capacity(body.len() + 1);
        framed.put_u8(kind as u8);
        framed.put_slice(body);
        framed.freeze()
    }

    fn handler(&self, body: &Bytes) -> Option<(&Arc<dyn Handler>, Bytes)> {
        let slot = match *body.first()? {
            1 => &self.ownership,
            2 => &self.meta,
            _ => return None,
        };
        Some((slot.get()?, body.slice(1..)))
    }
}

impl Handler for Control {
    fn request(&self, from: NodeId, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        match self.handler(&body) {
            Some((handler, body)) => handler.request(from, body),
            None => Box::pin(async { Err("nobody here takes this control message".to_owned()) }),
        }
    }

    fn notice(&self, from: NodeId, body: Bytes) {
        if let Some((handler, body)) = self.handler(&body) {
            handler.notice(from, body);
        }
    }
}
