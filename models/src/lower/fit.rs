//! Dimensions as numbers at some bindings, turned into [`Dim`]s.

use plantain::graph::{Binding, Dim};

use super::FreeDims;
use crate::import::flow::Size;

/// The bindings at which a network was imported.
///
/// They are the corners of a box over the free dimensions, first free dimension fastest, followed
/// by one more to check with; a network without free dimensions has exactly one.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// What is free.
    pub free: FreeDims,
    /// In the order described above.
    pub bindings: Vec<Binding>,
}

impl Sampling {
    /// One binding for a network of fixed sizes.
    pub fn fixed(binding: Binding) -> Self {
        Sampling { free: FreeDims::default(), bindings: vec![binding] }
    }

    /// Corners for free dimensions, with height and width in multiples of `unit`. The numbers are
    /// odd and unlike each other, so that no two dimensions of a network agree by chance.
    pub fn corners(free: FreeDims, unit: u32) -> Self {
        let at = |b, h, w| Binding {
            batch: if free.batch { b } else { 1 },
            height: if free.height { h * unit } else { 1 },
            width: if free.width { w * unit } else { 1 },
        };
        let mut bindings: Vec<Binding> =
            (0..8).map(|i| at(2 + (i & 1), 3 + 2 * (i >> 1 & 1), 7 + 4 * (i >> 2 & 1))).collect();
        bindings.dedup();
        let mut corners: Vec<Binding> = Vec::new();
        for binding in bindings {
            if !corners.contains(&binding) {
                corners.push(binding);
            }
        }
        if corners.len() > 1 {
            // Even where the corners are odd: what halves an odd size does not fit.
            corners.push(at(5, 8, 4));
        }
        Sampling { free, bindings: corners }
    }

    /// The dimension that has this size at each binding, if it is multilinear.
    pub fn dim(&self, size: &Size) -> Option<Dim> {
        if let Some(n) = size.fixed() {
            return Some(Dim::fixed(n));
        }
        let mut axes = Vec::new(); // (bit of the monomial, low, high)
        let corner = |i: usize| self.bindings[i];
        for (free, bit, get) in [
            (self.free.batch, 0usize, (|b| b.batch) as fn(Binding) -> u32),
            (self.free.height, 1, |b| b.height),
            (self.free.width, 2, |b| b.width),
        ] {
            if free {
                let step = 1usize << axes.len();
                axes.push((bit, i128::from(get(corner(0))), i128::from(get(corner(step)))));
            }
        }
        let count = 1usize << axes.len();
        let mut c: Vec<i128> = size.at()[..count].iter().map(|&n| n as i128).collect();
        let mut divisor: i128 = 1;
        for (axis, &(_, low, high)) in axes.iter().enumerate() {
            divisor *= high - low;
            for i in (0..count).filter(|i| i >> axis & 1 == 0) {
                let (f0, f1) = (c[i], c[i | 1 << axis]);
                c[i] = f0 * high - f1 * low;
                c[i | 1 << axis] = f1 - f0;
            }
        }
        let order = [0usize, 1, 2, 4, 3, 5, 6, 7];
        let mut coefficients = [0i64; 8];
        for (slot, &bits) in coefficients.iter_mut().zip(&order) {
            let mut index = Some(0usize);
            for bit in (0..3).filter(|bit| bits >> bit & 1 == 1) {
                let axis = axes.iter().position(|&(b, ..)| b == bit);
                index = index.zip(axis).map(|(i, a)| i | 1 << a);
            }
            *slot = i64::try_from(index.map_or(0, |i| c[i])).ok()?;
        }
        let dim = Dim::from_coefficients(coefficients, u32::try_from(divisor).ok()?)?;
        self.bindings
            .iter()
            .zip(size.at())
            .all(|(&binding, &n)| dim.bind(binding) == Ok(n))
            .then_some(dim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(sampling: &Sampling, f: impl Fn(u32, u32, u32) -> u32) -> Size {
        Size::new(
            sampling.bindings.iter().map(|b| f(b.batch, b.height, b.width) as usize).collect(),
        )
    }

    #[test]
    fn corners_fit_tokens_of_a_level() {
        let free = FreeDims { batch: true, height: true, width: true };
        let sampling = Sampling::corners(free, 8);
        assert_eq!(sampling.bindings.len(), 9);
        let dim = sampling.dim(&size(&sampling, |b, h, w| b * (h / 4) * (w / 4))).unwrap();
        let binding = Binding { batch: 2, height: 64, width: 96 };
        assert_eq!(dim.bind(binding), Ok(2 * 16 * 24));
        let mixed = sampling.dim(&size(&sampling, |b, h, w| 3 + 2 * h + b * w / 8)).unwrap();
        assert_eq!(mixed.bind(Binding { batch: 2, height: 10, width: 16 }), Ok(3 + 20 + 4));
        assert!(sampling.dim(&size(&sampling, |_, h, _| h * h)).is_none());
    }

    #[test]
    fn only_the_batch_is_free() {
        let free = FreeDims { batch: true, ..FreeDims::default() };
        let sampling = Sampling::corners(free, 1);
        assert_eq!(sampling.bindings.len(), 3);
        let dim = sampling.dim(&size(&sampling, |b, _, _| 4 * b)).unwrap();
        assert_eq!(dim.bind(Binding { batch: 7, height: 1, width: 1 }), Ok(28));
    }
}
