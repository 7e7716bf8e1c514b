//! Convolution and pooling windows.

use std::sync::Arc;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::cnn::conv::{Conv, KernelFormat};
use tract_onnx::tract_core::ops::cnn::{PaddingSpec, PoolSpec};

use super::Converter;
use crate::import::flow::{Convolution, Id, Kind};
use crate::lower::FloatTensor;

impl Converter<'_> {
    pub(super) fn window(&self, spec: &PoolSpec, node: &TypedNode) -> Option<Convolution> {
        let format = &spec.data_format;
        let from = usize::from(format.has_n());
        let rank = spec.kernel_shape.len();
        let (channel_axis, first) =
            if format.c_is_last() { (from + rank, from) } else { (from, from + 1) };
        let pad = match &spec.padding {
            PaddingSpec::Valid => vec![(0, 0); rank],
            PaddingSpec::Explicit(before, after)
            | PaddingSpec::ExplicitOnnxPool(before, after, false) => {
                before.iter().copied().zip(after.iter().copied()).collect()
            }
            PaddingSpec::SameUpper | PaddingSpec::SameLower => {
                let shape = self.shape(node.inputs[0]).ok()?;
                let dims = spec.padding.compute(
                    &shape[first..first + rank],
                    &spec.kernel_shape,
                    &spec.dilations(),
                    &spec.strides(),
                );
                dims.iter().map(|dim| (dim.pad_before, dim.pad_after)).collect()
            }
            PaddingSpec::ExplicitOnnxPool(..) => return None,
        };
        Some(Convolution {
            batch_axis: format.has_n().then_some(0),
            channel_axis,
            spatial_axes: (first..first + rank).collect(),
            kernel: spec.kernel_shape.to_vec(),
            stride: spec.strides().to_vec(),
            dilation: spec.dilations().to_vec(),
            pad,
            groups: 1,
        })
    }

    pub(super) fn convolution(&self, op: &Conv, node: &TypedNode) -> Option<Convolution> {
        if op.q_params.is_some() || op.kernel_fmt != KernelFormat::OIHW {
            return None;
        }
        Some(Convolution { groups: op.group, ..self.window(&op.pool_spec, node)? })
    }

    /// Drops a bias of zeros and spreads one of a single value.
    pub(super) fn conv_inputs(
        &mut self,
        node: &TypedNode,
        op: &Conv,
        conv: Convolution,
        mut inputs: Vec<Id>,
    ) -> TractResult<(Kind, Vec<Id>)> {
        let outputs = op.output_channels();
        if let Some(bias) = inputs.get(2).and_then(|&id| self.flow.constant(id)).cloned() {
            if bias.data.iter().all(|&v| v == 0.0) {
                inputs.truncate(2);
            } else if bias.data.len() != outputs || bias.shape.len() != 1 {
                let data = if bias.data.len() == 1 {
                    vec![bias.data[0]; outputs]
                } else {
                    bias.data.clone()
                };
                ensure!(data.len() == outputs, "{}: bias of {} values", node.name, data.len());
                let tensor = Arc::new(FloatTensor::new(vec![outputs], data));
                let name = format!("{}.bias", node.name);
                inputs[2] = self.push(&name, Kind::Constant(tensor), vec![], &[outputs]);
            }
        }
        Ok((Kind::Conv(conv), inputs))
    }
}

/// Whether a window never reaches over the edge.
pub(super) fn padding_is_zero(spec: &PoolSpec) -> bool {
    (0..spec.kernel_shape.len()).all(|axis| spec.padding.valid_dim(axis, true))
}
