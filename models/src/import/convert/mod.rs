//! tract's decluttered model at one binding, as a [`Flow`].
//!
//! Enters: a `TypedModel` whose shapes are all known. Leaves: the same graph op by op, constants as f32, truth
//! values as 0 and 1; what has no form stays as [`Kind::Unsupported`] until an output needs it. Never: fused
//! ops, layouts.

mod conv;
mod logic;
mod pointwise;

use std::collections::HashMap;
use std::sync::Arc;

use plantain::graph::{PoolKind, ResizeMode};

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::array::{
    Gather, MultiBroadcastTo, Pad, PadMode, Slice, Tile, TypedConcat,
};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::cnn::conv::Conv;
use tract_onnx::tract_core::ops::cnn::{MaxPool, SumPool};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::ops::logic::Iff;
use tract_onnx::tract_core::ops::nn::{
    NearestUpsample, Reduce, Reducer, Resize, RmsNorm, Softmax, SoftmaxKind,
};
use tract_onnx::tract_core::ops::source::TypedSource;
use tract_transformers::ops::sdpa::Sdpa;

use pointwise::{binary, elementwise, resize};

use super::flow::{Einsum, Element, Flow, Fold, Id, Kind, Node, Size};
use crate::lower::FloatTensor;

/// Converts a model whose shapes are all known.
pub(super) fn convert(model: &TypedModel) -> TractResult<Flow> {
    let mut converter =
        Converter { model, flow: Flow { bindings: 1, ..Flow::default() }, ids: HashMap::new() };
    for id in model.eval_order()? {
        converter.node(model.node(id))?;
    }
    for outlet in model.input_outlets()? {
        let id = converter.ids[outlet];
        converter.flow.inputs.push(id);
    }
    for (index, outlet) in model.output_outlets()?.iter().enumerate() {
        let name = model
            .outlet_label(*outlet)
            .map_or_else(|| format!("output.{index}"), ToOwned::to_owned);
        converter.flow.outputs.push((name, converter.ids[outlet]));
    }
    Ok(converter.flow)
}

/// A tensor's values as f32.
pub(super) fn floats(tensor: &Tensor) -> TractResult<FloatTensor> {
    let shape = tensor.shape().to_vec();
    let cast = if tensor.datum_type() == TDim::datum_type() {
        tensor.cast_to::<i64>()?.cast_to::<f32>()?.into_owned()
    } else {
        tensor.cast_to::<f32>()?.into_owned()
    };
    // Masks hide with infinity; a number that only just fits does the same without making NaN.
    let bounded = |v: &f32| if v.is_infinite() { f32::MAX.copysign(*v) } else { *v };
    let data = cast.try_as_plain_ram()?.as_slice::<f32>()?.iter().map(bounded).collect();
    Ok(FloatTensor::new(shape, data))
}

struct Converter<'a> {
    model: &'a TypedModel,
    flow: Flow,
    ids: HashMap<OutletId, Id>,
}

impl Converter<'_> {
    fn shape(&self, outlet: OutletId) -> TractResult<Vec<usize>> {
        let fact = self.model.outlet_fact(outlet)?;
        fact.shape.as_concrete().map(<[usize]>::to_vec).ok_or_else(|| {
            let node = self.model.node(outlet.node);
            format_err!(
                "node {:?}: the size of its output depends on values ({}), which no plan can hold; \
                     export the network without it",
                node.name,
                node.op.name()
            )
        })
    }

    fn element(&self, outlet: OutletId) -> TractResult<Element> {
        let kind = self.model.outlet_fact(outlet)?.datum_type;
        // Truth values that are computed are 0 and 1 in f32; those that are fed are integers.
        let fed = self.model.node(outlet.node).op_is::<TypedSource>();
        let int = kind.is_integer() || (kind == bool::datum_type() && fed);
        Ok(if int { Element::Int } else { Element::Float })
    }

    fn push(&mut self, name: &str, kind: Kind, inputs: Vec<Id>, shape: &[usize]) -> Id {
        let element = inputs.first().map_or(Element::Float, |&id| self.flow.nodes[id].element);
        let shape = shape.iter().map(|&n| Size::same(n, 1)).collect();
        let name = name.to_owned();
        self.flow.nodes.push(Node { name, kind, inputs, shape, element, traced: false });
        self.flow.nodes.len() - 1
    }

    fn node(&mut self, node: &TypedNode) -> TractResult<()> {
        let outlet = OutletId::new(node.id, 0);
        // Shapes and other integers that nothing but tract's own shape logic reads stay out.
        if node.outputs.is_empty() {
            return Ok(());
        }
        let shape = self.shape(outlet)?;
        let element = self.element(outlet)?;
        let inputs: Vec<Id> = node
            .inputs
            .iter()
            .map(|input| self.ids.get(input).copied().context("an operand is not converted"))
            .collect::<TractResult<_>>()?;
        let (kind, mut inputs) = self.kind(node, inputs, &shape)?;
        let moves = matches!(
            kind,
            Kind::Input
                | Kind::Constant(_)
                | Kind::Cast
                | Kind::Permute(_)
                | Kind::Reshape
                | Kind::Broadcast
                | Kind::Slice(..)
                | Kind::Concat(_)
                | Kind::Gather
        );
        if !moves {
            // Arithmetic is in f32: integers (masks) are small enough to be exact.
            inputs = inputs.into_iter().map(|id| self.float(id)).collect();
        }
        let id = self.push(&node.name, kind, inputs, &shape);
        let made = &mut self.flow.nodes[id];
        made.element = if moves { element } else { Element::Float };
        made.traced = true;
        self.ids.insert(outlet, id);
        for slot in 1..node.outputs.len() {
            let outlet = OutletId::new(node.id, slot);
            let shape = self.shape(outlet)?;
            let what = format!("{} with output {slot} in use", node.op.name());
            let id = self.push(&node.name, Kind::Unsupported(what), vec![], &shape);
            self.ids.insert(outlet, id);
        }
        Ok(())
    }

    fn kind(
        &mut self,
        node: &TypedNode,
        inputs: Vec<Id>,
        shape: &[usize],
    ) -> TractResult<(Kind, Vec<Id>)> {
        let size = |n: usize| Size::same(n, 1);
        let unsupported = || Kind::Unsupported(describe(node));
        let kind = if node.op_is::<TypedSource>() {
            Kind::Input
        } else if let Some(op) = node.op_as::<Const>() {
            Kind::Constant(Arc::new(floats(op.val())?))
        } else if let Some(op) = node.op_as::<ElementWiseOp>() {
            match elementwise(op) {
                Some(kind) => kind,
                None => {
                    return Ok(self
                        .logic_of_one(node, op, &inputs)
                        .unwrap_or((unsupported(), vec![])));
                }
            }
        } else if let Some(op) = node.op_as::<TypedBinOp>() {
            match binary(op) {
                Some(function) => Kind::Binary(function),
                None => {
                    return Ok(self
                        .logic_of_two(node, op, &inputs)
                        .unwrap_or((unsupported(), vec![])));
                }
            }
        } else if node.op_is::<Iff>() {
            return Ok(self.choice(node, &inputs).unwrap_or((unsupported(), vec![])));
        } else if let Some(op) = node.op_as::<AxisOp>() {
            match op {
                AxisOp::Move(from, to) => {
                    let mut permutation: Vec<usize> = (0..shape.len()).collect();
                    let axis = permutation.remove(*from);
                    permutation.insert(*to, axis);
                    Kind::Permute(permutation)
                }
                _ => Kind::Reshape,
            }
        } else if let Some(op) = node.op_as::<EinSum>() {
            let (labels, output) = op.axes.to_strs();
            let output = output.first().map(|l| l.chars().collect()).unwrap_or_default();
            if op.q_params.is_some() {
                unsupported()
            } else {
                let inputs = labels.iter().map(|l| l.chars().collect()).collect();
                Kind::Einsum(Einsum { inputs, output })
            }
        } else if let Some(op) = node.op_as::<Conv>() {
            match self.convolution(op, node) {
                Some(conv) => return self.conv_inputs(node, op, conv, inputs),
                None => unsupported(),
            }
        } else if let Some(op) = node.op_as::<SumPool>() {
            let padded = conv::padding_is_zero(&op.pool_spec);
            let mean = op.normalize && (padded || !op.count_include_pad);
            match self.window(&op.pool_spec, node).filter(|_| mean) {
                Some(window) => Kind::Pool(window, PoolKind::Average),
                None => unsupported(),
            }
        } else if let Some(op) = node.op_as::<MaxPool>() {
            match self.window(&op.pool_spec, node) {
                Some(window) => Kind::Pool(window, PoolKind::Max),
                None => unsupported(),
            }
        } else if let Some(op) = node.op_as::<Reduce>() {
            match op.reducer {
                Reducer::Sum => Kind::Reduce(Fold::Sum, op.axes.to_vec()),
                Reducer::MeanOfSquares => Kind::Reduce(Fold::MeanOfSquares, op.axes.to_vec()),
                _ => unsupported(),
            }
        } else if let Some(op) = node.op_as::<Softmax>() {
            match (&*op.axes, op.kind) {
                (&[axis], SoftmaxKind::Softmax) if op.quant_output_dt.is_none() => {
                    Kind::Softmax(axis)
                }
                _ => unsupported(),
            }
        } else if let Some(op) = node.op_as::<TypedConcat>() {
            Kind::Concat(op.axis)
        } else if let Some(op) = node.op_as::<Slice>() {
            match op.start.to_usize() {
                Ok(start) => Kind::Slice(op.axis, size(start)),
                Err(_) => unsupported(),
            }
        } else if let Some(op) = node.op_as::<Pad>() {
            match &op.mode {
                PadMode::Constant(value) => {
                    Kind::Pad(op.pads.clone(), value.cast_to_scalar::<f32>()?)
                }
                _ => unsupported(),
            }
        } else if let Some(op) = node.op_as::<Gather>() {
            return self.gather(op, node, inputs);
        } else if let Some(op) = node.op_as::<Cast>() {
            if op.to == bool::datum_type() {
                return Ok(self.truth(inputs[0]).unwrap_or((unsupported(), vec![])));
            }
            Kind::Cast
        } else if node.op_is::<MultiBroadcastTo>() {
            return self.broadcast(node, inputs, shape);
        } else if node.op_is::<Tile>() {
            let from = self.shape(node.inputs[0])?;
            let spread = (0..from.len()).all(|axis| from[axis] == 1 || from[axis] == shape[axis]);
            if spread { Kind::Broadcast } else { unsupported() }
        } else if let Some(op) = node.op_as::<NearestUpsample>() {
            Kind::Resize(op.scales.to_vec(), ResizeMode::Nearest)
        } else if let Some(op) = node.op_as::<Resize>() {
            match resize(op, &self.shape(node.inputs[0])?, shape) {
                Some(kind) => return Ok((kind, inputs[..1].to_vec())),
                None => unsupported(),
            }
        } else if let Some(op) = node.op_as::<RmsNorm>() {
            Kind::RmsNorm(op.axis, op.eps.cast_to_scalar::<f32>()?)
        } else if let Some(op) = node.op_as::<Sdpa>() {
            let d = self.shape(node.inputs[0])?.last().copied().unwrap_or(1);
            let scale = match &op.scale {
                Some(scale) => scale.cast_to_scalar::<f32>()?,
                None => 1.0 / (d as f32).sqrt(),
            };
            Kind::Sdpa { scale, causal: op.is_causal }
        } else {
            unsupported()
        };
        Ok((kind, inputs))
    }

    /// Broadcasting to a higher rank is a reshape first.
    fn broadcast(
        &mut self,
        node: &TypedNode,
        inputs: Vec<Id>,
        shape: &[usize],
    ) -> TractResult<(Kind, Vec<Id>)> {
        let from = self.shape(node.inputs[0])?;
        if from.len() == shape.len() {
            return Ok((Kind::Broadcast, inputs));
        }
        let mut full = vec![1; shape.len() - from.len()];
        full.extend(&from);
        let reshaped = self.push(&node.name, Kind::Reshape, inputs, &full);
        Ok((Kind::Broadcast, vec![reshaped]))
    }

    fn gather(
        &mut self,
        op: &Gather,
        node: &TypedNode,
        inputs: Vec<Id>,
    ) -> TractResult<(Kind, Vec<Id>)> {
        let index = self.flow.constant(inputs[1]).cloned();
        if let Some(index) = index
            && index.data.len() == 1
        {
            // One entry: a slice whose axis goes, or turns into the index' axes of one.
            let mut sliced = self.shape(node.inputs[0])?;
            let length = sliced[op.axis];
            let at = index.data[0];
            let at = if at < 0.0 { at + length as f32 } else { at } as usize;
            sliced[op.axis] = 1;
            let kind = Kind::Slice(op.axis, Size::same(at, 1));
            let id = self.push(&node.name, kind, inputs[..1].to_vec(), &sliced);
            return Ok((Kind::Reshape, vec![id]));
        }
        if op.axis == 0 {
            return Ok((Kind::Gather, inputs));
        }
        Ok((Kind::Unsupported(format!("Gather along axis {}", op.axis)), vec![]))
    }
}

/// The op and what is special about it, in words.
fn describe(node: &TypedNode) -> String {
    let info = node.op.info().unwrap_or_default().join(", ");
    if info.is_empty() {
        node.op.name().into_owned()
    } else {
        format!("{} ({info})", node.op.name())
    }
}
