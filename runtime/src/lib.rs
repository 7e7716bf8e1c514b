//! Text-to-image on small devices: a memory-bounded int8 runtime for packs.

#![deny(unsafe_code)]

pub mod arena;
pub mod engine;
pub mod graph;
pub mod image;
pub mod kernel;
pub mod pack;
pub mod pipeline;
pub mod plan;
pub mod rng;
pub mod units;
