//! The umbel program.

fn main() {}
