//! Between core's values and the rows of a shard.

use std::sync::Arc;

use umbel_core::{
    device::{DeviceRecord, RecordWrite},
    ids::ClientId,
    shadow::{Shadow, ShadowKind, StoredShadow},
};
use umbel_storage::{
    record,
    table::{ReadError, Table, Write},
};

use crate::{refused::Refused, shard::Shard};

/// Separates a client id from what follows in a key; no id holds it.
const SEPARATOR: u8 = 0;

/// The prefix of all rows of a client in the tables that have several per client.
pub(crate) fn prefix(client: &ClientId) -> Vec<u8> {
    let mut key = client.as_str().as_bytes().to_vec();
    key.push(SEPARATOR);
    key
}

/// The key of a shadow.
pub(crate) fn shadow_key(client: &ClientId, kind: &ShadowKind) -> Vec<u8> {
    let mut key = prefix(client);
    key.extend_from_slice(kind.name().unwrap_or_default().as_bytes());
    key
}

/// A write that changes nothing: no row has this key.
pub(crate) fn barrier(client: &ClientId) -> Write {
    Write::delete(Table::Device, prefix(client))
}

/// What a decision stores, as rows.
pub(crate) fn writes(client: &ClientId, writes: Vec<RecordWrite>) -> Result<Vec<Write>, Refused> {
    let mut rows = Vec::with_capacity(writes.len() + 2);
    for write in writes {
        match write {
            RecordWrite::Record(record) => {
                let value =
                    record::encode_device(&record).map_err(|why| unencodable(client, &why))?;
                rows.push(Write::put(Table::Device, client.as_str(), value));
            },
            RecordWrite::RemoveRecord => rows.push(Write::delete(Table::Device, client.as_str())),
            RecordWrite::Shadow { kind, stored } => {
                let value =
                    record::encode_shadow(&stored).map_err(|why| unencodable(client, &why))?;
                rows.push(Write::put(Table::Shadow, shadow_key(client, &kind), value));
            },
            RecordWrite::RemoveShadow { kind } => {
                rows.push(Write::delete(Table::Shadow, shadow_key(client, &kind)));
            },
            RecordWrite::DropSessionRows => {
                rows.extend(
                    [Table::Subscription, Table::Queue, Table::Inbound]
                        .map(|table| Write::delete_prefix(table, prefix(client))),
                );
            },
        }
    }
    Ok(rows)
}

/// The record of a client as it is known: the committed one, or the one in memory that is newer.
pub(crate) fn load_device(
    shard: &Shard,
    client: &ClientId,
) -> Result<Option<Arc<DeviceRecord>>, Refused> {
    if let Some(record) = shard.volatile(client) {
        return Ok(Some(record));
    }
    let value = get(shard, Table::Device, client.as_str().as_bytes())?;
    value
        .map(|value| decode_device(shard, &value).map(Arc::new))
        .transpose()
}

/// The committed shadow of a device; one that never existed if there is none.
pub(crate) fn load_shadow(
    shard: &Shard,
    client: &ClientId,
    kind: &ShadowKind,
) -> Result<Shadow, Refused> {
    let Some(value) = get(shard, Table::Shadow, &shadow_key(client, kind))? else {
        return Ok(Shadow::default());
    };
    Shadow::from_stored(&decode_shadow(shard, &value)?).map_err(|why| unreadable(shard, &why))
}

pub(crate) fn decode_device(shard: &Shard, value: &[u8]) -> Result<DeviceRecord, Refused> {
    record::decode_device(value).map_err(|why| unreadable(shard, &why))
}

pub(crate) fn decode_shadow(shard: &Shard, value: &[u8]) -> Result<StoredShadow, Refused> {
    record::decode_shadow(value).map_err(|why| unreadable(shard, &why))
}

fn get(shard: &Shard, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
    shard
        .common
        .ledger
        .get(shard.id, table, key)
        .map_err(|why| refusal(shard, &why))
}

/// A read failed. A damaged shard is quarantined by those who keep it; we only say so.
pub(crate) fn refusal(shard: &Shard, why: &ReadError) -> Refused {
    unreadable(shard, why)
}

pub(crate) fn unreadable(shard: &Shard, why: &dyn std::error::Error) -> Refused {
    tracing::error!(shard = %shard.id, error = %why, "a stored record cannot be read");
    Refused::Unreadable
}

fn unencodable(client: &ClientId, why: &dyn std::error::Error) -> Refused {
    tracing::error!(device = %client, error = %why, "a record cannot be stored");
    Refused::TooLarge
}
