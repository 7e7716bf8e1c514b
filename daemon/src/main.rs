//! plantain.
fn main() {}
