//! Changes of members, and ownership handed over.
