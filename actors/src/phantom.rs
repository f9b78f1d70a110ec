//! Connections that are recorded and that nobody has: found out before they are taken over, or when the gateway that gave
//! them up asks for it.
//!
//! They end as those of a gateway that is gone: without an event and without a will, stale until their client is back or
//! its grace is over.

use umbel_core::{
    device::{DeviceRecord, Disconnect, Input, Link, Session},
    ids::{ClientId, NodeId},
};

use crate::{
    lives::{self, Life},
    refused::Refused,
    remote::Hold,
    shard::Shard,
};

/// What became of a connection that is recorded as open.
enum Found {
    /// It is there.
    There,
    /// Its gateway does not hold it, and never will.
    Phantom,
    /// It is over, and the news had not come here.
    Ended(Disconnect),
    /// Its gateway cannot be spoken to.
    Lost,
    /// Its gateway does not answer.
    Silent,
}

/// What has to be applied before a client's next connection takes its place.
pub(crate) async fn before_connect(
    shard: &Shard,
    client: &ClientId,
    record: Option<&DeviceRecord>,
) -> Option<Input> {
    let session = open(record)?;
    let epoch = session.epoch;
    match look(shard, client, session).await {
        Found::There => None,
        Found::Ended(end) => Some(Input::Disconnect(end)),
        Found::Phantom => {
            shard.common.meters.phantoms.0.increment(1);
            Some(Input::GatewayLost { epoch })
        },
        // Its client knows before we do that its gateway is gone: it comes back, nobody throws it out.
        Found::Lost | Found::Silent => Some(Input::GatewayLost { epoch }),
    }
}

/// What has to be applied because a gateway gave a connect up that it may be recorded with.
pub(crate) async fn review(
    shard: &Shard,
    client: &ClientId,
    record: Option<&DeviceRecord>,
    gateway: NodeId,
) -> Result<Option<Input>, Refused> {
    let Some(session) = open(record).filter(|session| session.gateway == gateway) else {
        return Ok(None);
    };
    let epoch = session.epoch;
    match look(shard, client, session).await {
        Found::There => Ok(None),
        Found::Ended(end) => Ok(Some(Input::Disconnect(end))),
        Found::Phantom => {
            shard.common.meters.phantoms.1.increment(1);
            Ok(Some(Input::GatewayLost { epoch }))
        },
        // It has just spoken: it will ask again.
        Found::Lost | Found::Silent => Err(Refused::Unavailable),
    }
}

fn open(record: Option<&DeviceRecord>) -> Option<&Session> {
    let session = record?.session.as_ref()?;
    (session.link == Link::Up).then_some(session)
}

async fn look(shard: &Shard, client: &ClientId, session: &Session) -> Found {
    let common = &shard.common;
    let life = Life::of(session);
    if let Some(nodes) = &common.nodes
        && life.is_known()
        && lives::is_cut_off(life, nodes.as_ref())
    {
        return Found::Lost;
    }
    let Some(realm) = common.realm() else {
        return Found::There;
    };
    match realm.ask_holder(life, client, session.epoch).await {
        Some(Hold::Held) => Found::There,
        Some(Hold::Not) => Found::Phantom,
        Some(Hold::Ended(end)) => Found::Ended(end),
        None => Found::Silent,
    }
}
