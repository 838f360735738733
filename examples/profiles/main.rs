//! Profiles.
fn main() {}
