//! MatMul, scale, mask, Softmax, MatMul as one attention.

use plantain::graph::{Binary, Unary};

use super::Fuser;
use crate::import::flow::{Einsum, Id, Kind, Node, Size};

/// Scores below this hide a key: exp of it is zero in f32, and f16 exports use it.
const HIDDEN: f32 = -1e4;

/// What lies between the first matmul and the softmax.
struct Scores {
    product: Id,
    scale: f32,
    masks: Vec<Id>,
}

impl Fuser {
    /// The second matmul of attention, its first operand being a softmax.
    pub(super) fn attention(&mut self, node: &Node) -> Option<Id> {
        let Kind::Einsum(second) = &node.kind else { return None };
        (0..2).find_map(|p| {
            let id = *node.inputs.get(p)?;
            let Kind::Softmax(axis) = self.at(id).kind else { return None };
            let scores = self.scores(self.at(id).inputs[0])?;
            self.assemble(node, second, p, axis, scores)
        })
    }

    /// Walks from the softmax back to the first matmul.
    fn scores(&self, from: Id) -> Option<Scores> {
        let mut found = Scores { product: from, scale: 1.0, masks: Vec::new() };
        loop {
            let node = self.at(found.product);
            match &node.kind {
                Kind::Einsum(_) => return Some(found),
                // A shift of all scores does not change a softmax.
                Kind::Unary(Unary::Affine { scale, .. }) => {
                    found.scale *= scale;
                    found.product = node.inputs[0];
                }
                Kind::Binary(Binary::Add) if found.scale == 1.0 => {
                    let [a, b] = node.inputs[..] else { return None };
                    let leads = |id: Id| self.at(id).shape == node.shape && self.scored(id);
                    let (product, mask) = if leads(a) { (a, b) } else { (b, a) };
                    if !leads(product) {
                        return None;
                    }
                    found.masks.push(mask);
                    found.product = product;
                }
                _ => return None,
            }
        }
    }

    /// The value comes from a matmul of computed values through nothing but scales, masks and a
    /// softmax.
    fn scored(&self, mut id: Id) -> bool {
        loop {
            let node = self.at(id);
            match &node.kind {
                Kind::Einsum(_) => return true,
                Kind::Unary(Unary::Affine { .. }) | Kind::Softmax(_) => id = node.inputs[0],
                Kind::Binary(Binary::Add) => return node.inputs.iter().any(|&i| self.scored(i)),
                _ => return false,
            }
        }
    }

    /// Scores that are reshaped before they are scaled, masked or normalised (heads folded into
    /// the batch) are reshaped after it instead, where the reshape meets its inverse.
    pub(super) fn reshape_below_scores(&mut self, node: &Node) -> Option<Id> {
        let place = match node.kind {
            Kind::Unary(Unary::Affine { .. }) => 0,
            Kind::Softmax(axis) if axis + 1 == node.shape.len() => 0,
            Kind::Binary(Binary::Add) => (0..2).find(|&i| self.reshaped_scores(node.inputs[i]))?,
            _ => return None,
        };
        if !self.reshaped_scores(node.inputs[place]) {
            return None;
        }
        let x = self.at(node.inputs[place]).inputs[0];
        let shape = self.at(x).shape.clone();
        let (last, rank) = (node.shape.len() - 1, shape.len());
        if shape.last() != node.shape.last() || self.at(node.inputs[place]).shape != node.shape {
            return None;
        }
        let mut inputs = vec![x];
        if let Some(&mask) = node.inputs.get(1 - place).filter(|_| node.inputs.len() == 2) {
            let mask_shape = self.at(mask).shape.clone();
            let plain = last >= 1 && mask_shape[..last - 1].iter().all(Size::is_one);
            let target = if mask_shape == node.shape {
                shape.clone()
            } else if plain && rank >= 2 && shape[rank - 2..] == node.shape[last - 1..] {
                let mut target = vec![Size::same(1, self.bindings()); rank - 2];
                target.extend_from_slice(&mask_shape[last - 1..]);
                target
            } else {
                return None;
            };
            inputs.push(self.reshaped(node, mask, target));
        }
        let kind = match node.kind {
            Kind::Softmax(_) => Kind::Softmax(rank - 1),
            _ => node.kind.clone(),
        };
        let id = self.helper(node, kind, inputs, shape);
        Some(self.add(Node { kind: Kind::Reshape, inputs: vec![id], ..node.clone() }))
    }

    fn reshaped_scores(&self, id: Id) -> bool {
        let node = self.at(id);
        matches!(node.kind, Kind::Reshape) && self.scored(node.inputs[0])
    }

    /// A reshape of reshaped scores.
    pub(super) fn reshapes_of_scores(&mut self, node: &Node) -> Option<Id> {
        let Kind::Reshape = node.kind else { return None };
        if !self.reshaped_scores(node.inputs[0]) {
            return None;
        }
        let x = self.at(node.inputs[0]).inputs[0];
        if self.at(x).shape == node.shape {
            return Some(x);
        }
        Some(self.push(Node { inputs: vec![x], ..node.clone() }))
    }

    fn assemble(
        &mut self,
        node: &Node,
        second: &Einsum,
        p: usize,
        softmax_axis: usize,
        scores: Scores,
    ) -> Option<Id> {
        let first_node = self.at(scores.product).clone();
        let Kind::Einsum(first) = &first_node.kind else { return None };
        let v = 1 - p;
        let (p_labels, v_labels) = (&second.inputs[p], &second.inputs[v]);
        let rank = first.output.len();
        let keys_label = first.output[softmax_axis];
        let k = (0..2).find(|&i| first.inputs[i].contains(&keys_label))?;
        let q = 1 - k;
        let (q_labels, k_labels) = (&first.inputs[q], &first.inputs[k]);
        if q_labels.contains(&keys_label) || p_labels.len() != rank {
            return None;
        }
        // Roles of the scores' axes.
        let (mut batch, mut rows) = (Vec::new(), Vec::new());
        for (axis, (&s, &t)) in first.output.iter().zip(p_labels).enumerate() {
            let one = first_node.shape[axis].is_one();
            let in_output = second.output.contains(&t);
            if axis == softmax_axis {
                if in_output || !v_labels.contains(&t) {
                    return None;
                }
            } else if one {
                // Brought back by the last reshape.
            } else if q_labels.contains(&s) && k_labels.contains(&s) {
                if !v_labels.contains(&t) || !in_output {
                    return None;
                }
                batch.push(axis);
            } else if q_labels.contains(&s) {
                if v_labels.contains(&t) || !in_output {
                    return None;
                }
                rows.push(axis);
            } else {
                return None;
            }
        }
        let of = |labels: &[char], axes: &[usize], by: &[char]| -> Option<Vec<usize>> {
            axes.iter().map(|&axis| labels.iter().position(|&l| l == by[axis])).collect()
        };
        let (q_id, k_id, v_id) = (first_node.inputs[q], first_node.inputs[k], node.inputs[v]);
        let inner: Vec<char> = (0..q_labels.len())
            .filter(|&axis| !self.at(first_node.inputs[q]).shape[axis].is_one())
            .map(|axis| q_labels[axis])
            .filter(|l| !first.output.contains(l))
            .collect();
        let place = |labels: &[char], label: char| labels.iter().position(|&l| l == label);
        let q_inner: Vec<usize> =
            inner.iter().map(|&l| place(q_labels, l)).collect::<Option<_>>()?;
        let k_inner: Vec<usize> =
            inner.iter().map(|&l| place(k_labels, l)).collect::<Option<_>>()?;
        let keys = vec![softmax_axis];
        let columns: Vec<usize> = (0..v_labels.len())
            .filter(|&axis| {
                !self.at(v_id).shape[axis].is_one() && !p_labels.contains(&v_labels[axis])
            })
            .collect();
        if columns.iter().any(|&axis| !second.output.contains(&v_labels[axis])) {
            return None;
        }
        let q_parts =
            [of(q_labels, &batch, &first.output)?, of(q_labels, &rows, &first.output)?, q_inner];
        let k_parts =
            [of(k_labels, &batch, &first.output)?, of(k_labels, &keys, &first.output)?, k_inner];
        let v_parts =
            [of(v_labels, &batch, p_labels)?, of(v_labels, &keys, p_labels)?, columns.clone()];
        let width = |id: Id, axes: &[usize]| {
            Size::product(axes.iter().map(|&a| &self.at(id).shape[a]), self.bindings())
        };
        if width(q_id, &q_parts[2]) != width(v_id, &columns)
            || width(v_id, &columns).fixed().is_none()
        {
            return None;
        }
        let masks = self.masks(&scores, &first_node, &batch, &rows, softmax_axis)?;
        let mut scale = scores.scale;
        let mut unscaled = |id: Id| match self.affine(id) {
            Some((factor, 0.0, x)) => {
                scale *= factor;
                x
            }
            _ => id,
        };
        let (q_id, k_id) = (unscaled(q_id), unscaled(k_id));
        let q3 = self.parts(node, q_id, &q_parts)?;
        let k3 = self.parts(node, k_id, &k_parts)?;
        let v3 = self.parts(node, v_id, &v_parts)?;
        let mut inputs = vec![q3, k3, v3];
        inputs.extend(masks.additive);
        let mut shape = self.at(q3).shape.clone();
        let last = shape.len() - 1;
        shape[last] = self.at(v3).shape[last].clone();
        let kind = Kind::Attention { scale, causal: masks.causal };
        let fused = self.helper(node, kind, inputs, shape);

        // Back to the second matmul's output: split rows and columns, reorder, add axes of one.
        let mut labels: Vec<char> = batch.iter().map(|&axis| p_labels[axis]).collect();
        labels.extend(rows.iter().map(|&axis| p_labels[axis]));
        labels.extend(columns.iter().map(|&axis| v_labels[axis]));
        let size = |label: char| place(&second.output, label).map(|axis| node.shape[axis].clone());
        let split = labels.iter().map(|&l| size(l)).collect::<Option<Vec<_>>>()?;
        let split = self.reshaped(node, fused, split);
        let order: Vec<usize> =
            second.output.iter().filter_map(|&label| place(&labels, label)).collect();
        let ordered = self.permuted(node, split, order);
        Some(self.push(Node { kind: Kind::Reshape, inputs: vec![ordered], ..node.clone() }))
    }

    /// `[batch.., rows or keys, inner]`; the last two are joined to one axis each.
    fn parts(&mut self, like: &Node, id: Id, parts: &[Vec<usize>; 3]) -> Option<Id> {
        let shape = self.at(id).shape.clone();
        let order: Vec<usize> = parts.iter().flatten().copied().collect();
        // Axes of one go first, so that the permutation covers what is left.
        let kept: Vec<usize> = (0..shape.len()).filter(|axis| order.contains(axis)).collect();
        if (0..shape.len()).any(|axis| !kept.contains(&axis) && !shape[axis].is_one()) {
            return None;
        }
        let squeezed = kept.iter().map(|&axis| shape[axis].clone()).collect();
        let id = self.reshaped(like, id, squeezed);
        let permutation =
            order.iter().map(|axis| kept.iter().position(|k| k == axis)).collect::<Option<_>>()?;
        let id = self.permuted(like, id, permutation);
        let mut joined: Vec<Size> = parts[0].iter().map(|&axis| shape[axis].clone()).collect();
        for part in &parts[1..] {
            joined.push(Size::product(part.iter().map(|&a| &shape[a]), self.bindings()));
        }
        Some(self.reshaped(like, id, joined))
    }

    fn masks(
        &mut self,
        scores: &Scores,
        first: &Node,
        batch: &[usize],
        rows: &[usize],
        keys: usize,
    ) -> Option<Masks> {
        let mut result = Masks { additive: None, causal: false };
        for &mask in &scores.masks {
            if self.is_causal(mask, rows, keys) {
                result.causal = true;
                continue;
            }
            let shape = self.at(mask).shape.clone();
            // Heads are the last batch axis where there are two; a mask that varies there stays apart.
            if batch.len() > 1 && batch.last().is_some_and(|&axis| !shape[axis].is_one()) {
                return None;
            }
            if rows.len() > 1 && rows.iter().any(|&axis| !shape[axis].is_one()) {
                return None;
            }
            let order: Vec<usize> = batch.iter().chain(rows).copied().chain([keys]).collect();
            let dropped = (0..shape.len()).filter(|axis| !order.contains(axis));
            if dropped.clone().any(|axis| !shape[axis].is_one()) {
                return None;
            }
            let mut permutation: Vec<usize> = dropped.collect();
            permutation.extend(&order);
            let moved = self.permuted(first, mask, permutation);
            let mut target: Vec<Size> = batch.iter().map(|&axis| shape[axis].clone()).collect();
            target.push(Size::product(rows.iter().map(|&a| &shape[a]), self.bindings()));
            target.push(shape[keys].clone());
            let reshaped = self.reshaped(first, moved, target.clone());
            let last = target.len() - 1;
            target[last] = first.shape[keys].clone();
            let mask = if self.at(reshaped).shape == target {
                reshaped
            } else {
                self.helper(first, Kind::Broadcast, vec![reshaped], target)
            };
            result.additive = Some(match result.additive {
                None => mask,
                Some(other) => {
                    let (a, b) = (self.at(other).shape.clone(), &self.at(mask).shape);
                    let shape =
                        a.iter().zip(b).map(|(a, b)| if a.is_one() { b } else { a }.clone());
                    let shape = shape.collect();
                    self.helper(first, Kind::Binary(Binary::Add), vec![other, mask], shape)
                }
            });
        }
        Some(result)
    }

    /// A constant that hides exactly the keys after each query.
    fn is_causal(&self, mask: Id, rows: &[usize], keys: usize) -> bool {
        let (Some(tensor), &[rows]) = (self.flow.constant(mask), rows) else { return false };
        let (m, t) = (tensor.shape[rows], tensor.shape[keys]);
        rows < keys
            && m == t
            && m > 1
            && tensor.data.len() == m * t
            && tensor.data.iter().enumerate().all(|(index, &value)| {
                let hidden = index % t > index / t;
                if hidden { value <= HIDDEN } else { value == 0.0 }
            })
    }

    /// tract's attention op in the same form.
    pub(super) fn sdpa(&mut self, node: &Node) -> Option<Id> {
        let Kind::Sdpa { scale, causal } = node.kind else { return None };
        let shapes: Vec<Vec<Size>> =
            node.inputs.iter().map(|&id| self.at(id).shape.clone()).collect();
        let last = node.shape.len() - 1;
        let same =
            shapes[0][..last - 1] == shapes[1][..last - 1] && shapes[0][last] == shapes[2][last];
        if !same {
            return None;
        }
        let mut inputs = node.inputs.clone();
        let mut causal = causal;
        if let Some(&mask) = inputs.get(3) {
            let rank = self.at(mask).shape.len();
            if rank == last + 1 && self.is_causal(mask, &[last - 1], last) {
                causal = true;
                inputs.truncate(3);
            } else {
                let mut shape = vec![Size::same(1, self.bindings()); last + 1 - rank];
                shape.extend(self.at(mask).shape.clone());
                if last > 2 && !shape[last - 2].is_one() {
                    return None;
                }
                inputs[3] = self.reshaped(node, mask, shape.clone());
                if shape[last] != shapes[1][last - 1] {
                    shape[last] = shapes[1][last - 1].clone();
                    inputs[3] = self.helper(node, Kind::Broadcast, vec![inputs[3]], shape);
                }
            }
        }
        let kind = Kind::Attention { scale, causal };
        Some(self.push(Node { kind, inputs, ..node.clone() }))
    }
}

struct Masks {
    additive: Option<Id>,
    causal: bool,
}
