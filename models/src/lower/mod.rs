//! Lowering: from an imported ONNX network to a float plantain graph.
//!
//! Enters: the imported network. Leaves: a [`FloatNetwork`] in the runtime's layout (channels innermost) with
//! norms, activations and attention fused. Never: quantised numbers, files, tract.

mod network;

pub use network::{FloatNetwork, FloatTensor, FreeDims, Origin};
