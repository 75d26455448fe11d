//! The `gateward` command.

fn main() {}
