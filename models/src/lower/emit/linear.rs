//! Matmuls: with stored weights, and of two computed values.

use plantain::graph::{Epilogue, Op, Weight};

use super::arrange::{Groups, permuted};
use super::{Emitter, Result};
use crate::import::flow::{Einsum, LinearAxis, Node, Size};
use crate::lower::view::{Axis, Source, View};
use crate::lower::{FloatTensor, LowerError};

impl Emitter<'_> {
    pub(super) fn linear(
        &mut self,
        node: &Node,
        inner: &[usize],
        output: &[LinearAxis],
    ) -> Result<View> {
        let view = self.operand(node, 0);
        let view = self.expanded(&view, |axis| inner.contains(&axis))?;
        let last: Vec<usize> =
            inner.iter().flat_map(|&axis| view.axes[axis].atoms.iter().copied()).collect();
        let groups = self.with_last(&view, &last);
        let value = self.arrange(&view, &groups)?;
        let view = Self::after(&view, &groups, value);
        let bindings = view.bindings;

        let weights = self.flow.constant(node.inputs[1]).ok_or_else(|| {
            LowerError::unsupported(&node.name, "a computed weight", "constant weights are")
        })?;
        let outputs = weights.shape.len() - inner.len();
        let made: Vec<usize> = weights.shape[..outputs].to_vec();
        let n: usize = made.iter().product();
        let k: usize = weights.shape[outputs..].iter().product();
        let name = self.flow.nodes[node.inputs[1]].name.clone();
        let tensor = FloatTensor::new(vec![n, k], weights.data.clone());
        let panels = self.store(&name, tensor);
        let bias = match node.inputs.len() {
            3 => Some(self.store_operand(node, 2)?),
            _ => None,
        };

        let mut shape = self.shapes[value.index()].clone();
        if let Some(size) = shape.last_mut() {
            *size = Size::same(n, bindings);
        }
        let op = Op::MatmulF16 {
            weight: Weight { panels, scale: None, sums: None, bias },
            k: k as u32,
            n: n as u32,
            epilogue: Epilogue::default(),
        };
        let value = self.push(op, vec![value], shape)?;

        let mut order = view.order[..view.order.len() - last.len()].to_vec();
        let mut places = Vec::new();
        for &size in &made {
            places.push((size > 1).then_some(order.len()));
            if size > 1 {
                order.push(Size::same(size, bindings));
            }
        }
        let axes = output
            .iter()
            .zip(&node.shape)
            .map(|(axis, size)| match *axis {
                LinearAxis::Kept(axis) => view.axes[axis].clone(),
                LinearAxis::Made(axis) => {
                    Axis { size: size.clone(), atoms: places[axis].into_iter().collect() }
                }
                LinearAxis::One => Axis { size: size.clone(), atoms: Vec::new() },
            })
            .collect();
        Ok(View { source: Source::Value(value), order, axes, bindings })
    }

    /// Two computed operands; each label is a batch, row, inner or column axis.
    pub(super) fn batch_matmul(&mut self, node: &Node, einsum: &Einsum) -> Result<View> {
        let refuse = || {
            LowerError::unsupported(
                &node.name,
                format!("einsum {einsum:?}"),
                "sums of products of two tensors over shared axes are",
            )
        };
        let [la, lb] = einsum.inputs.as_slice() else { return Err(refuse()) };
        let (a, b) = (self.operand(node, 0), self.operand(node, 1));
        // Axes of one take no part.
        let large = |labels: &[char], view: &View| -> Vec<char> {
            let axes = labels.iter().zip(&view.axes);
            axes.filter(|(_, axis)| !axis.size.is_one()).map(|(&label, _)| label).collect()
        };
        let (ka, kb) = (large(la, &a), large(lb, &b));
        let kept = |l: &char| ka.contains(l) || kb.contains(l);
        let out: Vec<char> = einsum.output.iter().copied().filter(kept).collect();
        let of = |a: bool, b: bool| -> Vec<char> {
            out.iter().copied().filter(|l| ka.contains(l) == a && kb.contains(l) == b).collect()
        };
        let (batch, rows, columns) = (of(true, true), of(true, false), of(false, true));
        let inner: Vec<char> =
            ka.iter().copied().filter(|l| kb.contains(l) && !out.contains(l)).collect();
        if ka.len() != batch.len() + rows.len() + inner.len()
            || kb.len() != batch.len() + columns.len() + inner.len()
        {
            return Err(refuse());
        }
        let a = self.expanded(&a, |_| true)?;
        let b = self.expanded(&b, |_| true)?;
        let at = |labels: &[char], l: &char| labels.iter().position(|x| x == l).unwrap_or(0);
        let group = |view: &View, labels: &[char], wanted: &[char]| -> Vec<usize> {
            wanted.iter().flat_map(|l| view.axes[at(labels, l)].atoms.clone()).collect()
        };
        let mut ga: Groups = batch.iter().map(|&l| group(&a, la, &[l])).collect();
        let mut gb: Groups = batch.iter().map(|&l| group(&b, lb, &[l])).collect();
        ga.extend([group(&a, la, &rows), group(&a, la, &inner)]);
        let (k_atoms, n_atoms) = (group(&b, lb, &inner), group(&b, lb, &columns));
        // Whichever of the two lies innermost already decides about transposing.
        let transpose_b = k_atoms.last() > n_atoms.last();
        gb.extend(if transpose_b { [n_atoms, k_atoms] } else { [k_atoms, n_atoms] });
        let va = self.arrange(&a, &ga)?;
        let vb = self.arrange(&b, &gb)?;
        let size = |view: &View, group: &Vec<usize>| view.product(group);
        let mut shape: Vec<Size> = (0..batch.len()).map(|i| size(&a, &ga[i])).collect();
        shape.push(size(&a, &ga[batch.len()]));
        let column_axis = if transpose_b { batch.len() } else { batch.len() + 1 };
        shape.push(size(&b, &gb[column_axis]));
        if (0..batch.len()).any(|i| size(&a, &ga[i]) != size(&b, &gb[i])) {
            return Err(refuse());
        }
        let value = self.push(Op::BatchMatmul { transpose_b }, vec![va, vb], shape)?;
        let labels: Vec<char> = batch.iter().chain(&rows).chain(&columns).copied().collect();
        let whole = &einsum.output;
        let sizes: Vec<Size> = labels.iter().map(|l| node.shape[at(whole, l)].clone()).collect();
        let view = View::row_major(Source::Value(value), &sizes, self.flow.bindings);
        let axes = whole
            .iter()
            .zip(&node.shape)
            .map(|(l, size)| match labels.iter().position(|x| x == l) {
                Some(axis) => view.axes[axis].clone(),
                None => Axis { size: size.clone(), atoms: Vec::new() },
            })
            .collect();
        Ok(View { axes, ..view })
    }
}

/// A constant with its axes in another order, some of them joined: what einsum weights become.
pub(crate) fn rearranged(tensor: &FloatTensor, permutation: &[usize]) -> FloatTensor {
    let shape = permutation.iter().map(|&axis| tensor.shape[axis]).collect();
    FloatTensor::new(shape, permuted(&tensor.data, &tensor.shape, permutation))
}
