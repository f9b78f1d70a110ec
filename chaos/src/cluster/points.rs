//! Points of the program's code at which a node is made to die; `tests/tidy` holds this list against the sources.

/// All of them, by name.
pub(super) const POINTS: &[&str] = &[
    "actor.adopted",
    "actor.persist.after",
    "actor.persist.before",
    "append.before",
    "append.saved",
    "apply.after",
    "apply.before",
    "checkpoint.before",
    "checkpoint.saved",
    "elect.after",
    "elect.before",
    "epoch.granted",
    "install.after",
    "install.before",
    "log.flush.before",
    "log.flush.durable",
    "log.flush.told",
    "members.before",
    "members.changed",
    "meta.after",
    "meta.before",
    "purge.before",
    "purge.saved",
    "recovery.after",
    "recovery.before",
    "recovery.page",
    "replica.begin",
    "snapshot.adopted",
    "snapshot.created",
    "snapshot.piece.after",
    "snapshot.piece.before",
    "snapshot.received",
    "snapshot.renamed",
    "snapshot.synced",
    "snapshot.written",
    "state.apply.after",
    "state.apply.before",
    "state.checkpoint.after",
    "state.checkpoint.before",
    "state.restore.after",
    "state.restore.before",
    "state.row.before",
    "takeover.evict",
    "transfer.forgotten",
    "transfer.taken",
    "transfer.yielded",
    "truncate.before",
    "truncate.saved",
    "vote.before",
    "vote.saved",
    "will.before",
    "will.published",
];

/// The point of this name.
pub(super) fn known(name: &str) -> Result<&'static str, String> {
    let point = POINTS.iter().find(|point| **point == name);
    point
        .copied()
        .ok_or_else(|| format!("there is no such point, but {}", POINTS.join(", ")))
}
