//! Views: how a value's memory order relates to the model's axes.
//!
//! A value in memory is a list of *atoms*, outermost first, none of size one. Each axis of the
//! model is a list of atoms. Transposing or reshaping in the model only rewrites these lists;
//! nothing moves until an op needs another memory order.

use std::sync::Arc;

use plantain::graph::ValueId;

use super::FloatTensor;
use crate::import::flow::Size;

/// What a view looks at.
#[derive(Clone, Debug)]
pub enum Source {
    /// A value of the plantain graph.
    Value(ValueId),
    /// A tensor known at pack time.
    Constant(Arc<FloatTensor>),
}

/// One axis of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Its size in the model. Larger than its atoms' product (then there are none) where a value
    /// repeats along it.
    pub size: Size,
    /// Indices into [`View::order`], outermost first.
    pub atoms: Vec<usize>,
}

/// A value seen in the model's axes.
#[derive(Clone, Debug)]
pub struct View {
    /// What is looked at.
    pub source: Source,
    /// Atoms in memory order.
    pub order: Vec<Size>,
    /// Axes in the model's order.
    pub axes: Vec<Axis>,
    /// Bindings at which sizes are known.
    pub bindings: usize,
}

impl View {
    /// A value whose memory order is the order of the axes.
    pub fn row_major(source: Source, shape: &[Size], bindings: usize) -> Self {
        let all: Vec<usize> = (0..shape.len()).collect();
        Self::in_order(source, shape, &all, bindings)
    }

    /// A value whose memory holds the axes in another order.
    pub fn in_order(source: Source, shape: &[Size], memory: &[usize], bindings: usize) -> Self {
        let mut order = Vec::new();
        let mut axes: Vec<Axis> =
            shape.iter().map(|size| Axis { size: size.clone(), atoms: Vec::new() }).collect();
        for &axis in memory {
            if !shape[axis].is_one() {
                axes[axis].atoms.push(order.len());
                order.push(shape[axis].clone());
            }
        }
        View { source, order, axes, bindings }
    }

    /// The product of some atoms.
    pub fn product(&self, atoms: &[usize]) -> Size {
        Size::product(atoms.iter().map(|&a| &self.order[a]), self.bindings)
    }

    /// The value repeats along this axis.
    pub fn stretched(&self, axis: usize) -> bool {
        self.axes[axis].atoms.is_empty() && !self.axes[axis].size.is_one()
    }

    /// The value repeats along any axis.
    pub fn any_stretched(&self) -> bool {
        (0..self.axes.len()).any(|axis| self.stretched(axis))
    }

    /// Axes whose atoms do not lie together in memory.
    pub fn pieces(&self) -> usize {
        let apart = |pair: &[usize]| pair[0] + 1 != pair[1];
        self.axes.iter().filter(|axis| axis.atoms.windows(2).any(apart)).count()
    }

    /// Atoms in the order of the axes.
    pub fn logical(&self) -> Vec<usize> {
        self.axes.iter().flat_map(|axis| axis.atoms.iter().copied()).collect()
    }

    /// Splits an atom in two, the second of which has size `inner`.
    pub fn split(&mut self, atom: usize, inner: &Size) -> Option<()> {
        let outer = self.order[atom].over(inner)?;
        if outer.is_one() || inner.is_one() {
            return Some(());
        }
        self.order[atom] = outer;
        self.order.insert(atom + 1, inner.clone());
        for axis in &mut self.axes {
            for a in axis.atoms.iter_mut().filter(|a| **a > atom) {
                *a += 1;
            }
            if let Some(at) = axis.atoms.iter().position(|&a| a == atom) {
                axis.atoms.insert(at + 1, atom + 1);
            }
        }
        Some(())
    }

    /// Joins an axis' atoms to one; they must lie together in memory.
    pub fn join(&mut self, axis: usize) -> Option<()> {
        let atoms = self.axes[axis].atoms.clone();
        let (Some(&first), count) = (atoms.first(), atoms.len()) else { return Some(()) };
        if !atoms.iter().enumerate().all(|(i, &a)| a == first + i) {
            return None;
        }
        self.order[first] = self.product(&atoms);
        self.order.drain(first + 1..first + count);
        self.axes[axis].atoms = vec![first];
        for (index, other) in self.axes.iter_mut().enumerate() {
            if index != axis {
                for a in other.atoms.iter_mut().filter(|a| **a > first) {
                    *a -= count - 1;
                }
            }
        }
        Some(())
    }

    /// The axes in another order.
    pub fn permute(&self, permutation: &[usize]) -> View {
        let axes = permutation.iter().map(|&axis| self.axes[axis].clone()).collect();
        View { axes, ..self.clone() }
    }

    /// The same values in row-major order of the axes under another shape. `None` if the atoms
    /// cannot be regrouped (then the value must first be brought into the order of its axes) or if
    /// the value repeats along an axis that changes.
    pub fn reshape(&self, shape: &[Size]) -> Option<View> {
        // Axes of one come and go freely; the others are matched from the left.
        let mut view = self.clone();
        let mut axes: Vec<Axis> = Vec::new();
        let mut from: std::collections::VecDeque<Axis> =
            std::mem::take(&mut view.axes).into_iter().filter(|axis| !axis.size.is_one()).collect();
        // Atoms stay in `queue` as ranges of `view.order`, which `split` renumbers.
        for size in shape {
            if size.is_one() {
                axes.push(Axis { size: size.clone(), atoms: Vec::new() });
                continue;
            }
            if from.front().is_some_and(|axis| axis.size == *size) {
                axes.push(from.pop_front()?);
                continue;
            }
            let mut atoms = Vec::new();
            let mut need = size.clone();
            while !need.is_one() {
                let front = from.front_mut()?;
                if front.atoms.is_empty() {
                    return None;
                }
                let atom = front.atoms[0];
                let have = view.order[atom].clone();
                if let Some(rest) = need.over(&have) {
                    need = rest;
                    front.size = front.size.over(&have)?;
                    front.atoms.remove(0);
                    atoms.push(atom);
                    if front.size.is_one() {
                        from.pop_front();
                    }
                } else {
                    let inner = have.over(&need)?;
                    view.order[atom] = need.clone();
                    view.order.insert(atom + 1, inner);
                    let shift = |a: &mut usize| *a += usize::from(*a > atom);
                    axes.iter_mut().for_each(|axis| axis.atoms.iter_mut().for_each(shift));
                    from.iter_mut().for_each(|axis| axis.atoms.iter_mut().for_each(shift));
                    atoms.iter_mut().for_each(shift);
                    let front = from.front_mut()?;
                    front.atoms.insert(1, atom + 1);
                }
            }
            axes.push(Axis { size: size.clone(), atoms });
        }
        if !from.is_empty() {
            return None;
        }
        view.axes = axes;
        Some(view)
    }

    /// Splits atoms of both views so that axis `mine` of this one and axis `theirs` of the other
    /// have atoms of the same sizes. `None` if their sizes do not nest.
    pub fn refine(&mut self, mine: usize, other: &mut View, theirs: usize) -> Option<()> {
        let mut index = 0;
        loop {
            let (a, b) = (&self.axes[mine].atoms, &other.axes[theirs].atoms);
            match (a.get(index), b.get(index)) {
                (None, None) => return Some(()),
                (Some(&x), Some(&y)) => {
                    let (p, q) = (self.order[x].clone(), other.order[y].clone());
                    if p == q {
                    } else if let Some(inner) = p.over(&q) {
                        self.split(x, &inner)?;
                    } else if let Some(inner) = q.over(&p) {
                        other.split(y, &inner)?;
                    } else {
                        return None;
                    }
                    index += 1;
                }
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(values: &[usize]) -> Vec<Size> {
        values.iter().map(|&n| Size::same(n, 1)).collect()
    }

    fn value(shape: &[usize], memory: &[usize]) -> View {
        View::in_order(Source::Value(ValueId(0)), &sizes(shape), memory, 1)
    }

    #[test]
    fn image_to_tokens_and_back_moves_nothing() {
        let image = value(&[2, 6, 4, 5], &[0, 2, 3, 1]);
        let tokens = image.reshape(&sizes(&[2, 6, 20])).unwrap().permute(&[0, 2, 1]);
        assert_eq!(tokens.logical(), vec![0, 1, 2, 3]);
        let heads = tokens.reshape(&sizes(&[2, 20, 3, 2])).unwrap();
        assert_eq!(heads.order, sizes(&[2, 4, 5, 3, 2]));
        let folded = heads.permute(&[0, 2, 1, 3]).reshape(&sizes(&[6, 20, 2])).unwrap();
        assert_eq!(folded.axes[0].atoms, vec![0, 3]);
        let back = folded.reshape(&sizes(&[2, 3, 20, 2])).unwrap().permute(&[0, 2, 1, 3]);
        let back = back.reshape(&sizes(&[2, 4, 5, 6])).unwrap();
        assert_eq!(back.logical(), vec![0, 1, 2, 3, 4]);
    }

    #[test]
    fn sizes_that_do_not_nest_are_refused() {
        assert!(value(&[4, 6], &[1, 0]).reshape(&sizes(&[6, 4])).is_none());
        assert!(value(&[4, 6], &[1, 0]).reshape(&sizes(&[5, 5])).is_none());
    }

    #[test]
    fn refining_splits_both_sides() {
        let mut a = value(&[8, 5], &[0, 1]);
        let mut b = value(&[2, 4, 5], &[0, 1, 2]).reshape(&sizes(&[8, 5])).unwrap();
        a.refine(0, &mut b, 0).unwrap();
        assert_eq!(a.order, sizes(&[2, 4, 5]));
        assert_eq!(a.axes[0].atoms, vec![0, 1]);
        a.join(0).unwrap();
        assert_eq!(a.order, sizes(&[8, 5]));
        assert_eq!(a.axes[1].atoms, vec![1]);
    }
}
