//! The pack: one safetensors file with everything that a picture needs.
//!
//! Enters: a path. Leaves: verified graphs, the pipeline and tensors that borrow the map. Never: copies of
//! weights, trust in the file.

pub mod panel;
