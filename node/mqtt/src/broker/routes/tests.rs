//! What nodes tell each other, without nodes.
