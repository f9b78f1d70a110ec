//! A program that breaks a node and judges it.

fn main() {}
