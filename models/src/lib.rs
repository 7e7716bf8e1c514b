//! From ONNX networks to a plantain pack, on a laptop.
//!
//! `import` reads ONNX through tract, `lower` turns it into a float [`plantain::graph::Graph`] in
//! the runtime's layout; pruning, where it is asked for, quantising and writing follow.

pub mod chain;
pub mod evaluate;
pub mod import;
pub mod lower;
pub mod packing;
pub mod prune;
pub mod quantise;
pub mod recipe;
pub mod report;
pub mod verify;
pub mod write;
