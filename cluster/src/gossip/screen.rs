//! What foca is shown of a packet.
//!
//! A node that was cut off comes back with the belief that all others are dead, and gossips it: measured, one node cut
//! off for twenty seconds made all five renew, with fifteen false notices. So for a while after a node appeared it is
//! not believed about others' deaths. That it takes *this* node for dead is told by a message of its own, and answered.

use std::{collections::BTreeMap, time::Duration};

use bytes::{Buf, BufMut};
use foca::{Codec, Message, State};
use umbel_core::ids::NodeId;
use umbel_storage::nodes::Boot;

use super::{identity::Identity, seal::Rubbish, wire::Wire};

/// Most members held. Only who has the key can add any; this is against a defect.
pub(super) const MEMBERS_MAX: usize = 1024;

/// When each node appeared.
pub(super) struct Screen {
    settle: Duration,
    appeared: BTreeMap<NodeId, Duration>,
}

/// A message as foca may have it.
pub(super) struct Screened {
    /// Its bytes.
    pub(super) message: Vec<u8>,
    /// Whether news of deaths were left out.
    pub(super) doubted: bool,
}

impl Screen {
    pub(super) fn new(settle: Duration) -> Self {
        Self {
            settle,
            appeared: BTreeMap::new(),
        }
    }

    /// A member is there, that was not.
    pub(super) fn appeared(&mut self, node: NodeId, now: Duration) {
        let settle = self.settle;
        self.appeared.retain(|_, at| now < *at + settle);
        self.appeared.insert(node, now);
    }

    /// The message without what is not to be believed.
    pub(super) fn pass<'m>(
        &self,
        message: &[u8],
        sender: (NodeId, Boot),
        view: impl Iterator<Item = &'m foca::Member<Identity>>,
        now: Duration,
    ) -> Result<Screened, Rubbish> {
        let content = |_error| Rubbish::Content;
        let mut rest = message;
        let header = Wire.decode_header(&mut rest).map_err(content)?;
        if (header.src.node, header.src.boot) != sender || header.message == Message::Broadcast {
            return Err(Rubbish::Content);
        }
        let head = message
            .get(..message.len() - rest.len())
            .ok_or(Rubbish::Content)?;
        if rest.is_empty() {
            return Ok(Screened {
                message: head.to_vec(),
                doubted: false,
            });
        }
        let known: BTreeMap<NodeId, bool> = view
            .map(|member| (member.id().node, member.state() != State::Down))
            .collect();
        let appeared = self.appeared.get(&sender.0);
        let is_settled = known.get(&sender.0).is_some_and(|alive| *alive)
            && appeared.is_none_or(|at| now >= *at + self.settle);
        let (mut kept, mut doubted) = (Vec::new(), false);
        let mut count = 0_u16;
        if rest.len() < 2 {
            return Err(Rubbish::Content);
        }
        for _ in 0..rest.get_u16() {
            let update = Wire.decode_member(&mut rest).map_err(content)?;
            let is_death = update.state() == State::Down && update.id().node != sender.0;
            let is_new = !known.contains_key(&update.id().node);
            if is_death && !is_settled {
                doubted = true;
            } else if !is_new || known.len() < MEMBERS_MAX {
                Wire.encode_member(&update, &mut kept).map_err(content)?;
                count += 1;
            }
        }
        if !rest.is_empty() {
            return Err(Rubbish::Content);
        }
        let mut message = head.to_vec();
        message.put_u16(count);
        message.append(&mut kept);
        Ok(Screened { message, doubted })
    }
}
