//! Bringing views into the memory order and shape that an op needs.

use std::sync::Arc;

use plantain::graph::{Op, ShuffleOrder, ValueId};

use super::{Emitter, Result};
use crate::import::flow::Size;
use crate::lower::view::{Axis, Source, View};
use crate::lower::{FloatTensor, LowerError};

/// Dimensions of a value as lists of atoms.
pub(super) type Groups = Vec<Vec<usize>>;

impl Emitter<'_> {
    /// A value whose dimensions are these groups of the view's atoms, each atom exactly once.
    pub(super) fn arrange(&mut self, view: &View, groups: &Groups) -> Result<ValueId> {
        let target: Vec<usize> = groups.iter().flatten().copied().collect();
        debug_assert_eq!(target.len(), view.order.len(), "every atom once");
        let shape: Vec<Size> = groups.iter().map(|group| view.product(group)).collect();
        let value = match &view.source {
            Source::Constant(tensor) => return self.constant(view, tensor, &target, shape),
            Source::Value(value) => *value,
        };
        let identity = target.iter().enumerate().all(|(i, &a)| i == a);
        if identity && self.shapes[value.index()] == shape {
            return Ok(value);
        }
        let key = (value, target.clone(), shape.clone());
        if let Some(&known) = self.arranged.get(&key) {
            return Ok(known);
        }
        let result = if identity {
            self.push_named(".reshaped", Op::Reshape, vec![value], shape)?
        } else if let Some(shuffled) = self.shuffle(view, value, groups, &shape)? {
            shuffled
        } else {
            self.transpose(view, value, &target, shape)?
        };
        self.arranged.insert(key, result);
        Ok(result)
    }

    fn reshaped(&mut self, value: ValueId, shape: Vec<Size>) -> Result<ValueId> {
        if self.shapes[value.index()] == shape {
            return Ok(value);
        }
        self.push_named(".reshaped", Op::Reshape, vec![value], shape)
    }

    fn transpose(
        &mut self,
        view: &View,
        value: ValueId,
        target: &[usize],
        shape: Vec<Size>,
    ) -> Result<ValueId> {
        let mut runs: Vec<Vec<usize>> = Vec::new(); // in target order
        for &atom in target {
            match runs.last_mut() {
                Some(run) if run.last().is_some_and(|&last| last + 1 == atom) => run.push(atom),
                _ => runs.push(vec![atom]),
            }
        }
        let mut sorted: Vec<usize> = (0..runs.len()).collect();
        sorted.sort_by_key(|&run| runs[run][0]);
        let permutation = runs.iter().map(|run| sorted.iter().position(|&s| runs[s][0] == run[0]));
        let permutation: Vec<u32> = permutation.flatten().map(|p| p as u32).collect();
        let from: Vec<Size> = sorted.iter().map(|&run| view.product(&runs[run])).collect();
        let to: Vec<Size> = runs.iter().map(|run| view.product(run)).collect();
        let source = self.reshaped(value, from)?;
        let moved =
            self.push_named(".transposed", Op::Transpose { permutation }, vec![source], to)?;
        self.reshaped(moved, shape)
    }

    /// The transposes that are pixel shuffles.
    fn shuffle(
        &mut self,
        view: &View,
        value: ValueId,
        groups: &Groups,
        shape: &[Size],
    ) -> Result<Option<ValueId>> {
        let [batch, rows, columns, channels] = match groups.as_slice() {
            [batch, rows, columns, channels] => [batch, rows, columns, channels],
            // Tokens: rows and columns joined.
            [batch, tokens, channels] => {
                for at in 1..tokens.len() {
                    let (rows, columns) = tokens.split_at(at);
                    let image =
                        vec![batch.clone(), rows.to_vec(), columns.to_vec(), channels.clone()];
                    let sizes: Vec<Size> = image.iter().map(|g| view.product(g)).collect();
                    if let Some(shuffled) = self.shuffle(view, value, &image, &sizes)? {
                        return self.reshaped(shuffled, shape.to_vec()).map(Some);
                    }
                }
                return Ok(None);
            }
            _ => return Ok(None),
        };
        let is_memory = |parts: &[&[usize]]| {
            parts.iter().copied().flatten().enumerate().all(|(i, &atom)| i == atom)
        };
        let square = |a: usize, b: usize| {
            (view.order[a] == view.order[b]).then(|| view.order[a].fixed()).flatten()
        };
        let size = |parts: &[&[usize]]| {
            let atoms: Vec<usize> = parts.iter().copied().flatten().copied().collect();
            view.product(&atoms)
        };
        // Apart: cells in memory hold r x r sub-cells in their channels.
        if let ([h @ .., dy], [w @ .., dx]) = (rows.as_slice(), columns.as_slice())
            && !(h.is_empty() && w.is_empty())
            && let Some(factor) = square(*dy, *dx)
        {
            let pair = [*dy, *dx];
            let order = if is_memory(&[batch, h, w, channels, &pair]) {
                Some(ShuffleOrder::ChannelFirst)
            } else if is_memory(&[batch, h, w, &pair, channels]) {
                Some(ShuffleOrder::BlockFirst)
            } else {
                None
            };
            if let Some(order) = order {
                let from = vec![size(&[batch]), size(&[h]), size(&[w]), size(&[channels, &pair])];
                let source = self.reshaped(value, from)?;
                let op = Op::PixelShuffle { factor: factor as u32, order };
                return self.push_named(".shuffled", op, vec![source], shape.to_vec()).map(Some);
            }
        }
        // Together: sub-cells in memory go into the channels.
        let candidates = match channels.as_slice() {
            [c @ .., dy, dx] => {
                let [y, x, rest @ ..] = channels.as_slice() else { return Ok(None) };
                [
                    (c, *dy, *dx, ShuffleOrder::ChannelFirst),
                    (rest, *y, *x, ShuffleOrder::BlockFirst),
                ]
            }
            _ => return Ok(None),
        };
        for (c, dy, dx, order) in candidates {
            let Some(factor) = square(dy, dx) else { continue };
            if rows.is_empty() && columns.is_empty() {
                continue;
            }
            if is_memory(&[batch, rows, &[dy], columns, &[dx], c]) {
                let from =
                    vec![size(&[batch]), size(&[rows, &[dy]]), size(&[columns, &[dx]]), size(&[c])];
                let source = self.reshaped(value, from)?;
                let op = Op::PixelUnshuffle { factor: factor as u32, order };
                return self.push_named(".unshuffled", op, vec![source], shape.to_vec()).map(Some);
            }
        }
        Ok(None)
    }

    fn constant(
        &mut self,
        view: &View,
        tensor: &Arc<FloatTensor>,
        target: &[usize],
        shape: Vec<Size>,
    ) -> Result<ValueId> {
        let tensor =
            transposed(view, tensor, target, &shape).ok_or_else(|| self.shape_error(&shape))?;
        let identity = target.iter().enumerate().all(|(i, &a)| i == a);
        let key = (view_address(view), shape.clone());
        if let (true, Some(&known)) = (identity, self.constants.get(&key)) {
            return Ok(known);
        }
        let name = format!("{}.constant", self.flow.nodes[self.current].name);
        let tensor = self.store(&name, tensor);
        let value = self.push_named(".constant", Op::Constant { tensor }, vec![], shape)?;
        if identity {
            self.constants.insert(key, value);
        }
        Ok(value)
    }

    pub(super) fn shape_error(&self, shape: &[Size]) -> LowerError {
        LowerError::Shape {
            node: self.flow.nodes[self.current].name.clone(),
            shape: format!("{shape:?}"),
        }
    }

    /// Dimensions of the view's value as groups of its atoms. `None` if a dimension cuts an atom.
    pub(super) fn base(&self, view: &View) -> Option<Groups> {
        let Source::Value(value) = view.source else { return None };
        let mut groups = Vec::new();
        let mut next = 0;
        for size in &self.shapes[value.index()] {
            let mut group = Vec::new();
            let mut have = Size::same(1, view.bindings);
            while have != *size {
                have = have.times(view.order.get(next)?);
                size.over(&have)?;
                group.push(next);
                next += 1;
            }
            groups.push(group);
        }
        (next == view.order.len()).then_some(groups)
    }

    /// Groups that keep the value's dimensions where they can, with `last` as the last dimension.
    pub(super) fn with_last(&self, view: &View, last: &[usize]) -> Groups {
        let rest = |atom: &usize| !last.contains(atom);
        let mut groups: Groups = match self.base(view) {
            Some(mut base) => {
                // A dimension of one at the end makes room for an empty `last`.
                if base.len() > 1 && base.last().is_some_and(|g| g.iter().all(|a| !rest(a))) {
                    base.pop();
                }
                let filtered = |g: Vec<usize>| {
                    let was_empty = g.is_empty();
                    let g: Vec<usize> = g.into_iter().filter(rest).collect();
                    (was_empty || !g.is_empty()).then_some(g)
                };
                base.into_iter().filter_map(filtered).collect()
            }
            None => (0..view.order.len()).filter(rest).map(|atom| vec![atom]).collect(),
        };
        groups.push(last.to_vec());
        groups
    }

    /// Splits groups so that each holds only atoms for which `key` is the same.
    pub(super) fn uniform<K: PartialEq>(groups: Groups, key: impl Fn(usize) -> K) -> Groups {
        let mut result = Vec::new();
        for group in groups {
            let mut part: Vec<usize> = Vec::new();
            for atom in group.iter().copied() {
                if part.last().is_some_and(|&last| key(last) != key(atom)) {
                    result.push(std::mem::take(&mut part));
                }
                part.push(atom);
            }
            result.push(part);
        }
        result
    }

    /// The view after [`Emitter::arrange`] with these groups.
    pub(super) fn after(view: &View, groups: &Groups, value: ValueId) -> View {
        let target: Vec<usize> = groups.iter().flatten().copied().collect();
        let place = |atom: &usize| target.iter().position(|t| t == atom).unwrap_or(usize::MAX);
        View {
            source: Source::Value(value),
            order: target.iter().map(|&atom| view.order[atom].clone()).collect(),
            axes: view
                .axes
                .iter()
                .map(|axis| Axis {
                    size: axis.size.clone(),
                    atoms: axis.atoms.iter().map(place).collect(),
                })
                .collect(),
            bindings: view.bindings,
        }
    }

    /// A value that really repeats where the view only pretends to, along the axes that `which`
    /// selects.
    pub(super) fn expanded(&mut self, view: &View, which: impl Fn(usize) -> bool) -> Result<View> {
        let axes: Vec<usize> =
            (0..view.axes.len()).filter(|&a| view.stretched(a) && which(a)).collect();
        if axes.is_empty() {
            return Ok(view.clone());
        }
        // Row-major over the axes keeps the order of atoms and gives the new ones their place.
        let groups: Groups = view.axes.iter().map(|axis| axis.atoms.clone()).collect();
        let source = self.arrange(view, &groups)?;
        let full = |(index, axis): (usize, &Axis)| {
            if axes.contains(&index) { axis.size.clone() } else { view.product(&axis.atoms) }
        };
        let shape: Vec<Size> = view.axes.iter().enumerate().map(full).collect();
        let value = self.push_named(".expanded", Op::Expand, vec![source], shape.clone())?;
        let mut result = View::row_major(Source::Value(value), &shape, view.bindings);
        for (axis, old) in result.axes.iter_mut().zip(&view.axes) {
            axis.size = old.size.clone();
        }
        Ok(result)
    }

    /// The value in the order of the model's axes, one dimension an axis.
    pub(super) fn row_major(&mut self, view: &View) -> Result<View> {
        let view = self.expanded(view, |_| true)?;
        let groups: Groups = view.axes.iter().map(|axis| axis.atoms.clone()).collect();
        let shape: Vec<Size> = view.axes.iter().map(|axis| axis.size.clone()).collect();
        let value = self.arrange(&view, &groups)?;
        Ok(View::row_major(Source::Value(value), &shape, view.bindings))
    }
}

fn view_address(view: &View) -> usize {
    match &view.source {
        Source::Constant(tensor) => Arc::as_ptr(tensor) as usize,
        Source::Value(value) => value.index(),
    }
}

/// A constant's data with its atoms in another order.
fn transposed(
    view: &View,
    tensor: &FloatTensor,
    target: &[usize],
    shape: &[Size],
) -> Option<FloatTensor> {
    let order: Vec<usize> = view.order.iter().map(Size::fixed).collect::<Option<_>>()?;
    let shape: Vec<usize> = shape.iter().map(Size::fixed).collect::<Option<_>>()?;
    Some(FloatTensor::new(shape, permuted(&tensor.data, &order, target)))
}

/// Row-major data of shape `from`, transposed so that axis `i` is axis `permutation[i]`.
pub(crate) fn permuted(data: &[f32], from: &[usize], permutation: &[usize]) -> Vec<f32> {
    if permutation.iter().enumerate().all(|(i, &p)| i == p) {
        return data.to_vec();
    }
    let mut strides = vec![1; from.len()];
    for axis in (1..from.len()).rev() {
        strides[axis - 1] = strides[axis] * from[axis];
    }
    let to: Vec<usize> = permutation.iter().map(|&p| from[p]).collect();
    let steps: Vec<usize> = permutation.iter().map(|&p| strides[p]).collect();
    let mut index = vec![0usize; to.len()];
    let mut offset = 0;
    let mut result = Vec::with_capacity(data.len());
    for _ in 0..data.len() {
        result.push(data[offset]);
        for axis in (0..to.len()).rev() {
            index[axis] += 1;
            offset += steps[axis];
            if index[axis] < to[axis] {
                break;
            }
            offset -= steps[axis] * to[axis];
            index[axis] = 0;
        }
    }
    result
}
