//! ONNX to tract's decluttered model at one binding.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use plantain::graph::Binding;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::optim::Optimizer;

use super::ImportError;
use super::convert::convert;
use super::flow::Flow;
use super::onnx::OnnxFile;

/// Passes of tract that move axes and split matmuls for its own kernels; lowering wants the graph
/// as it was written.
const UNWANTED_PASSES: [&str; 4] =
    ["PushSliceUp", "PushSplitDown", "ConcatThenEinsum", "ChangeAxes"];

/// The decluttered model with the free dimensions bound.
pub(super) fn typed(onnx: &mut OnnxFile, binding: Binding) -> Result<TypedModel, ImportError> {
    onnx.bind(binding);
    guarded(&onnx.path, || {
        let folder = onnx.path.parent().and_then(Path::to_str);
        let reader =
            tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
        let mut model = reader.parse(&onnx.proto, folder)?.model.into_typed()?;
        let mut optimizer = Optimizer::declutter();
        optimizer.passes.retain(|pass| {
            let name = format!("{pass:?}");
            !UNWANTED_PASSES.iter().any(|unwanted| name.starts_with(unwanted))
        });
        model.optimize_with_session(&mut optimizer.session())?;
        Ok(model)
    })
}

/// The model as a flow.
pub(super) fn flow(onnx: &mut OnnxFile, binding: Binding) -> Result<Flow, ImportError> {
    let model = typed(onnx, binding)?;
    guarded(&onnx.path, || convert(&model))
}

/// Runs tract code, whose panics on odd models must not end the packer.
pub(super) fn guarded<T>(
    path: &Path,
    work: impl FnOnce() -> TractResult<T>,
) -> Result<T, ImportError> {
    let failed = |message| ImportError::Model { path: path.to_owned(), message };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            // The innermost reasons say most; the outer ones list whole nodes.
            let mut chain: Vec<String> = error
                .chain()
                .map(|cause| cause.to_string().lines().next().unwrap_or_default().to_owned())
                .collect();
            chain.dedup();
            let from = chain.len().saturating_sub(3);
            Err(failed(chain[from..].join(": ")))
        }
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(failed(text.unwrap_or_else(|| "tract stopped without a reason".to_owned())))
        }
    }
}
