//! tract's decluttered model at one binding, as a [`Flow`].

use std::collections::HashMap;
use std::sync::Arc;

use plantain::graph::{Binary, PoolKind, ResizeMode, Unary};

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::array::{
    Gather, MultiBroadcastTo, Pad, PadMode, Slice, Tile, TypedConcat,
};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::cnn::conv::{Conv, KernelFormat};
use tract_onnx::tract_core::ops::cnn::{MaxPool, PaddingSpec, PoolSpec, SumPool};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::ops::math::PowConst;
use tract_onnx::tract_core::ops::nn::gelu_approximate::GeluApproximate;
use tract_onnx::tract_core::ops::nn::{
    CoordTransformer, Interpolator, LeakyRelu, Nearest, NearestUpsample, Reduce, Reducer, Resize,
    RmsNorm, Softmax, SoftmaxKind,
};
use tract_onnx::tract_core::ops::source::TypedSource;
use tract_transformers::ops::sdpa::Sdpa;

use super::flow::{Convolution, Einsum, Element, Flow, Fold, Id, Kind, Node, Size};
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
    let data = cast.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
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
        fact.shape
            .as_concrete()
            .map(<[usize]>::to_vec)
            .ok_or_else(|| format_err!("{} has no fixed shape", self.model.node(outlet.node).name))
    }

    fn element(&self, outlet: OutletId) -> TractResult<Element> {
        let float = self.model.outlet_fact(outlet)?.datum_type.is_float();
        Ok(if float { Element::Float } else { Element::Int })
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
        let (kind, inputs) = self.kind(node, inputs, &shape)?;
        let id = self.push(&node.name, kind, inputs, &shape);
        let made = &mut self.flow.nodes[id];
        made.element = element;
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
            elementwise(op).unwrap_or_else(unsupported)
        } else if let Some(op) = node.op_as::<TypedBinOp>() {
            binary(op).map_or_else(unsupported, Kind::Binary)
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
            let padded = op.pool_spec.padding_is_zero();
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
        } else if node.op_is::<Cast>() {
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

    fn window(&self, spec: &PoolSpec, node: &TypedNode) -> Option<Convolution> {
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

    fn convolution(&self, op: &Conv, node: &TypedNode) -> Option<Convolution> {
        if op.q_params.is_some() || op.kernel_fmt != KernelFormat::OIHW {
            return None;
        }
        Some(Convolution { groups: op.group, ..self.window(&op.pool_spec, node)? })
    }

    /// Drops a bias of zeros and spreads one of a single value.
    fn conv_inputs(
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

/// The op and what is special about it, in words.
fn describe(node: &TypedNode) -> String {
    let info = node.op.info().unwrap_or_default().join(", ");
    if info.is_empty() {
        node.op.name().into_owned()
    } else {
        format!("{} ({info})", node.op.name())
    }
}

fn elementwise(op: &ElementWiseOp) -> Option<Kind> {
    let mini = &op.0;
    if let Some(op) = mini.downcast_ref::<LeakyRelu>() {
        return Some(Kind::Unary(Unary::LeakyRelu(op.alpha)));
    }
    if let Some(op) = mini.downcast_ref::<GeluApproximate>() {
        return (!op.fast_impl).then_some(Kind::Unary(Unary::GeluTanh));
    }
    if let Some(op) = mini.downcast_ref::<PowConst>() {
        return Some(power(op.exponent));
    }
    let unary = match &*mini.name() {
        "Silu" => Unary::Silu,
        "GeluExact" => Unary::Gelu,
        "Sigmoid" => Unary::Sigmoid,
        "Tanh" => Unary::Tanh,
        "Exp" => Unary::Exp,
        "Erf" => Unary::Erf,
        "Sqrt" => Unary::Sqrt,
        "Rsqrt" => Unary::Rsqrt,
        "Recip" => Unary::Reciprocal,
        "Sin" => Unary::Sin,
        "Cos" => Unary::Cos,
        "Neg" => Unary::Neg,
        "Abs" => Unary::Abs,
        "Square" => Unary::Square,
        _ => return None,
    };
    Some(Kind::Unary(unary))
}

/// `x ^ exponent`.
pub(super) fn power(exponent: f32) -> Kind {
    match exponent {
        2.0 => Kind::Unary(Unary::Square),
        0.5 => Kind::Unary(Unary::Sqrt),
        -0.5 => Kind::Unary(Unary::Rsqrt),
        -1.0 => Kind::Unary(Unary::Reciprocal),
        other => Kind::Power(other),
    }
}

fn binary(op: &TypedBinOp) -> Option<Binary> {
    Some(match op.0.name() {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Min" => Binary::Min,
        "Max" => Binary::Max,
        _ => return None,
    })
}

fn resize(op: &Resize, from: &[usize], to: &[usize]) -> Option<Kind> {
    let whole = from.iter().zip(to).all(|(&f, &t)| t % f == 0);
    let mode = match (&op.interpolator, &op.coord_transformer, &op.nearest) {
        (Interpolator::Nearest, CoordTransformer::Asymmetric, Nearest::Floor) => {
            ResizeMode::Nearest
        }
        (Interpolator::Linear, CoordTransformer::HalfPixel, _) => ResizeMode::Bilinear,
        _ => return None,
    };
    let factors = from.iter().zip(to).map(|(&f, &t)| t / f).collect();
    whole.then_some(Kind::Resize(factors, mode))
}

trait ZeroPadding {
    fn padding_is_zero(&self) -> bool;
}

impl ZeroPadding for PoolSpec {
    fn padding_is_zero(&self) -> bool {
        (0..self.kernel_shape.len()).all(|axis| self.padding.valid_dim(axis, true))
    }
}
