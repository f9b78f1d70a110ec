//! A program that plays a fleet.

fn main() {}
