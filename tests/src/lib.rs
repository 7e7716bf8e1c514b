//! What the tests that cross crates share: the built binaries, and memory cgroups.

pub mod cgroup;
pub mod command;
