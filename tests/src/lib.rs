//! What the tests that cross crates share: the built binaries, memory cgroups, small packs.

pub mod cgroup;
pub mod command;
pub mod packs;
