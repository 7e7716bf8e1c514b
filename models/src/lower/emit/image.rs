//! Ops over images: convolution, pooling, resizing, padding.

use plantain::graph::{Epilogue, Op, PoolKind, ResizeMode, ValueId, Weight, Window};

use super::arrange::{Groups, permuted};
use super::{Emitter, Result};
use crate::import::flow::{Convolution, Node, Size};
use crate::lower::view::{Source, View};
use crate::lower::{FloatTensor, LowerError};

impl Emitter<'_> {
    /// The value as `[b, h, w, c]`.
    fn image(&mut self, view: &View, conv: &Convolution) -> Result<(View, ValueId)> {
        let spatial = |axis: usize| conv.spatial_axes.contains(&axis);
        let view = self.expanded(view, |axis| spatial(axis) || axis == conv.channel_axis)?;
        let atoms = |axis: usize| view.axes[axis].atoms.clone();
        let mut groups: Groups = vec![conv.batch_axis.map_or_else(Vec::new, atoms)];
        if conv.spatial_axes.len() == 1 {
            groups.push(Vec::new());
        }
        groups.extend(conv.spatial_axes.iter().map(|&axis| atoms(axis)));
        groups.push(atoms(conv.channel_axis));
        let value = self.arrange(&view, &groups)?;
        Ok((Self::after(&view, &groups, value), value))
    }

    /// Shape `[b, h, w, c]` of an op's result, and the view of it.
    fn image_shape(&self, node: &Node, conv: &Convolution, input: &View) -> (Vec<Size>, View) {
        let mut memory: Vec<usize> = conv.batch_axis.into_iter().collect();
        memory.extend(&conv.spatial_axes);
        memory.push(conv.channel_axis);
        let mut sizes = node.shape.clone();
        let repeats = conv.batch_axis.filter(|&axis| input.stretched(axis));
        if let Some(axis) = repeats {
            sizes[axis] = Size::same(1, self.flow.bindings);
        }
        let one = Size::same(1, self.flow.bindings);
        let mut shape = vec![conv.batch_axis.map_or(one.clone(), |axis| sizes[axis].clone())];
        if conv.spatial_axes.len() == 1 {
            shape.push(one);
        }
        shape.extend(conv.spatial_axes.iter().map(|&axis| sizes[axis].clone()));
        shape.push(sizes[conv.channel_axis].clone());
        let source = Source::Value(ValueId(0));
        let mut view = View::in_order(source, &sizes, &memory, self.flow.bindings);
        if let Some(axis) = repeats {
            view.axes[axis].size = node.shape[axis].clone();
        }
        (shape, view)
    }

    fn image_op(&mut self, node: &Node, conv: &Convolution, op: Op) -> Result<View> {
        let (input, value) = self.image(&self.operand(node, 0), conv)?;
        let (shape, view) = self.image_shape(node, conv, &input);
        let value = self.push(op, vec![value], shape)?;
        Ok(View { source: Source::Value(value), ..view })
    }

    pub(super) fn convolution(&mut self, node: &Node, conv: &Convolution) -> Result<View> {
        if conv.spatial_axes.is_empty() || conv.spatial_axes.len() > 2 {
            return Err(LowerError::unsupported(
                &node.name,
                format!("a convolution over {} axes", conv.spatial_axes.len()),
                "convolutions over one or two are",
            ));
        }
        let kernel = self.flow.constant(node.inputs[1]).cloned().ok_or_else(|| {
            LowerError::unsupported(&node.name, "a computed kernel", "constant kernels are")
        })?;
        let (n, per_group) = (kernel.shape[0], kernel.shape[1]);
        let c = per_group * conv.groups;
        let (kernel, window) = dilated(&kernel, conv);
        let name = self.flow.nodes[node.inputs[1]].name.clone();
        let bias = match node.inputs.len() {
            3 => Some(self.store_operand(node, 2)?),
            _ => None,
        };
        let [kh, kw] = window.kernel.map(|k| k as usize);
        if conv.groups > 1 && per_group == 1 && n == c {
            let data = permuted(&kernel, &[c, kh * kw], &[1, 0]);
            let weight = self.store(&name, FloatTensor::new(vec![kh, kw, c], data));
            let op = Op::Depthwise { weight, bias, window, epilogue: Epilogue::default() };
            return self.image_op(node, conv, op);
        }
        let data = permuted(&kernel, &[n, per_group, kh * kw], &[0, 2, 1]);
        if conv.groups == 1 {
            let panels = self.store(&name, FloatTensor::new(vec![n, kh, kw, c], data));
            let weight = Weight { panels, scale: None, sums: None, bias };
            let op = conv_op(weight, c, n, window);
            return self.image_op(node, conv, op);
        }
        // Groups: one convolution each over a slice of the channels.
        let (input, value) = self.image(&self.operand(node, 0), conv)?;
        let (shape, view) = self.image_shape(node, conv, &input);
        let n_group = n / conv.groups;
        let size = |n| Size::same(n, self.flow.bindings);
        let (slice_size, part_size) = (size(per_group), size(n_group));
        let mut parts = Vec::new();
        for (group, chunk) in data.chunks(data.len() / conv.groups).enumerate() {
            let mut sliced = self.shapes[value.index()].clone();
            sliced[3] = slice_size.clone();
            let start = plantain::graph::Dim::fixed(group * per_group);
            let slice = Op::Slice { axis: 3, start };
            let part = self.push_named(".group", slice, vec![value], sliced)?;
            let tensor = FloatTensor::new(vec![n_group, kh, kw, per_group], chunk.to_vec());
            let panels = self.store(&format!("{name}.{group}"), tensor);
            let bias = bias.as_ref().map(|bias| {
                let all = &self.weights[bias].data;
                let part = all[group * n_group..(group + 1) * n_group].to_vec();
                self.store(&format!("{bias}.{group}"), FloatTensor::new(vec![n_group], part))
            });
            let weight = Weight { panels, scale: None, sums: None, bias };
            let mut result = shape.clone();
            result[3] = part_size.clone();
            let op = conv_op(weight, per_group, n_group, window);
            parts.push(self.push_named(".group", op, vec![part], result)?);
        }
        if let Some(bias) = bias {
            self.weights.remove(&bias);
        }
        let value = self.push(Op::Concat { axis: 3 }, parts, shape)?;
        Ok(View { source: Source::Value(value), ..view })
    }

    pub(super) fn pool(&mut self, node: &Node, conv: &Convolution, kind: PoolKind) -> Result<View> {
        if conv.dilation.iter().any(|&d| d != 1) {
            return Err(LowerError::unsupported(
                &node.name,
                "pooling with dilation",
                "pooling without is",
            ));
        }
        let window = window(conv, &conv.kernel);
        self.image_op(node, conv, Op::Pool { kind, window })
    }

    pub(super) fn resize(
        &mut self,
        node: &Node,
        factors: &[usize],
        mode: ResizeMode,
    ) -> Result<View> {
        let (true, &[1, 1, down, right]) = (node.shape.len() == 4, factors) else {
            return Err(LowerError::unsupported(
                &node.name,
                format!("Resize by {factors:?}"),
                "whole factors of height and width of [n, c, h, w] are",
            ));
        };
        let op = Op::Resize { factor: [down as u32, right as u32], mode };
        self.image_op(node, &plain_image(), op)
    }

    pub(super) fn pad(&mut self, node: &Node, pads: &[(usize, usize)], value: f32) -> Result<View> {
        let &[(0, 0), (0, 0), (top, bottom), (left, right)] = pads else {
            return Err(LowerError::unsupported(
                &node.name,
                format!("Pad of {pads:?}"),
                "padding height and width of [n, c, h, w] is",
            ));
        };
        let pad = [top, left, bottom, right].map(|p| p as u32);
        self.image_op(node, &plain_image(), Op::Pad { pad, value })
    }
}

fn conv_op(weight: Weight, c: usize, n: usize, window: Window) -> Op {
    Op::ConvF16 { weight, c: c as u32, n: n as u32, window, epilogue: Epilogue::default() }
}

/// `[n, c, h, w]`.
fn plain_image() -> Convolution {
    Convolution {
        batch_axis: Some(0),
        channel_axis: 1,
        spatial_axes: vec![2, 3],
        kernel: vec![1, 1],
        stride: vec![1, 1],
        dilation: vec![1, 1],
        pad: vec![(0, 0), (0, 0)],
        groups: 1,
    }
}

fn window(conv: &Convolution, kernel: &[usize]) -> Window {
    let two = |values: &[usize], fill: usize| match values {
        [h, w] => [*h as u32, *w as u32],
        [w] => [fill as u32, *w as u32],
        _ => [fill as u32; 2],
    };
    let before: Vec<usize> = conv.pad.iter().map(|p| p.0).collect();
    let after: Vec<usize> = conv.pad.iter().map(|p| p.1).collect();
    let ([top, left], [bottom, right]) = (two(&before, 0), two(&after, 0));
    Window { kernel: two(kernel, 1), stride: two(&conv.stride, 1), pad: [top, left, bottom, right] }
}

/// The kernel `[n, c, kh * kw]` with zeros where a dilated window skips cells.
fn dilated(kernel: &FloatTensor, conv: &Convolution) -> (Vec<f32>, Window) {
    let sizes: Vec<usize> =
        conv.kernel.iter().zip(&conv.dilation).map(|(&k, &d)| (k - 1) * d + 1).collect();
    let window = window(conv, &sizes);
    if conv.dilation.iter().all(|&d| d == 1) {
        return (kernel.data.clone(), window);
    }
    let pair = |values: &[usize], fill: usize| match values {
        [h, w] => [*h, *w],
        [w] => [fill, *w],
        _ => [fill; 2],
    };
    let ([kh, kw], [dh, dw], [th, tw]) =
        (pair(&conv.kernel, 1), pair(&conv.dilation, 1), pair(&sizes, 1));
    let planes = kernel.data.len() / (kh * kw);
    let mut data = vec![0.0; planes * th * tw];
    for plane in 0..planes {
        for y in 0..kh {
            for x in 0..kw {
                data[(plane * th + y * dh) * tw + x * dw] = kernel.data[(plane * kh + y) * kw + x];
            }
        }
    }
    (data, window)
}
