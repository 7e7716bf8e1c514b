//! Kernels for aarch64.
//!
//! Enters: arguments whose bounds were asserted (`check`). Leaves: the reference's bits. Never: a table offered
//! to a CPU without its features; `TABLES` pairs each with its test, and nothing else is visible from outside.

super::tables! {}
