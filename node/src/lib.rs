//! The umbel program.
