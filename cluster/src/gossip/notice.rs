//! What gossip noticed.

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noticed {
    /// A member is there.
    Up,
    /// A member is gone.
    Down,
    /// A member has a new life, or came back.
    Again,
    /// This node was taken for dead and said that it is not.
    Renewed,
    /// Somebody just back called others dead.
    Doubted,
}

impl Noticed {
    /// Every kind.
    pub(super) const ALL: [Self; 5] = [
        Self::Up,
        Self::Down,
        Self::Again,
        Self::Renewed,
        Self::Doubted,
    ];

    /// Its name in metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Again => "again",
            Self::Renewed => "renewed",
            Self::Doubted => "doubted",
        }
    }
}
