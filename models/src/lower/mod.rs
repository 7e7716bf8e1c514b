//! Lowering: from an imported ONNX network to a float plantain graph.
//!
//! Enters: the imported flow. Leaves: a [`FloatNetwork`] in the runtime's layout (channels innermost)
//! with norms, activations and attention fused. Never: quantised numbers, files, tract.

mod emit;
mod epilogue;
mod error;
pub(crate) mod fit;
mod fuse;
mod hoist;
mod network;
mod view;

pub use error::LowerError;
pub use fit::Sampling;
pub use network::{FloatNetwork, FloatTensor, FreeDims, Origin};

pub(crate) use emit::{permuted, rearranged};

use crate::import::Imported;

/// Lowers an imported network; `name` becomes the graph's.
///
/// # Errors
/// [`LowerError`]: an op without a form in plantain, or a shape that does not follow batch, height
/// and width.
pub fn lower(imported: &Imported, name: &str) -> Result<FloatNetwork, LowerError> {
    let fused = fuse::fuse(&imported.flow);
    let mut emitted = emit::emit(&fused, &imported.sampling, name)?;
    hoist::hoist(&mut emitted);
    epilogue::fuse(&mut emitted);
    Ok(FloatNetwork {
        graph: emitted.graph,
        weights: emitted.weights,
        origins: emitted.origins,
        free: imported.sampling.free,
        unit: imported.unit,
        binding: imported.sampling.bindings[0],
    })
}
