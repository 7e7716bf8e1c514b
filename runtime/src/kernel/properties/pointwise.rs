//! Properties of functions of single values.

use super::{Draw, oracle, over, same, same_f16};
use crate::graph::{Binary, Unary};
use crate::kernel::{Kernels, Row};
use half::f16;
use proptest::prelude::any;

pub fn convert(table: &Kernels) {
    // Every f16, then every f16's neighbourhood in f32.
    let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    let (mut got, mut expected) = (vec![0.0; halves.len()], vec![0.0; halves.len()]);
    (table.load_f16)(&halves, &mut got);
    (oracle().load_f16)(&halves, &mut expected);
    same(&got, &expected, "load_f16");
    for shift in [0i32, 1, -1, 0xfff, 0x1000, 0x1001] {
        let floats: Vec<f32> = expected
            .iter()
            .filter(|value| value.is_finite())
            .map(|value| f32::from_bits(value.to_bits().wrapping_add_signed(shift)))
            .collect();
        let (mut got, mut expected) =
            (vec![f16::ZERO; floats.len()], vec![f16::ZERO; floats.len()]);
        (table.store_f16)(&floats, &mut got);
        (oracle().store_f16)(&floats, &mut expected);
        same_f16(&got, &expected, "store_f16");
    }
    over!(64, |(length in 0usize..70, seed in any::<u64>())| {
        let floats = Draw::new(seed).wilds(length);
        let (mut got, mut expected) = (vec![f16::ZERO; length], vec![f16::ZERO; length]);
        (table.store_f16)(&floats, &mut got);
        (oracle().store_f16)(&floats, &mut expected);
        same_f16(&got, &expected, "store_f16");
        let (mut got, mut expected) = (vec![0.0; length], vec![0.0; length]);
        let halves = Draw::new(seed).halves(length, 70000.0);
        (table.load_f16)(&halves, &mut got);
        (oracle().load_f16)(&halves, &mut expected);
        same(&got, &expected, "load_f16");
    });
}

/// All functions, with parameters.
pub const FUNCTIONS: [Unary; 20] = [
    Unary::Relu,
    Unary::LeakyRelu(0.2),
    Unary::Silu,
    Unary::Gelu,
    Unary::GeluTanh,
    Unary::QuickGelu,
    Unary::Sigmoid,
    Unary::Tanh,
    Unary::Exp,
    Unary::Erf,
    Unary::Sqrt,
    Unary::Rsqrt,
    Unary::Reciprocal,
    Unary::Sin,
    Unary::Cos,
    Unary::Neg,
    Unary::Abs,
    Unary::Square,
    Unary::Affine { scale: 0.7, shift: -0.1 },
    Unary::Clamp { min: -1.0, max: 2.5 },
];

pub fn unary(table: &Kernels) {
    for function in FUNCTIONS {
        over!(24, |(length in 0usize..100, seed in any::<u64>())| {
            let mut got = Draw::new(seed).wilds(length);
            let mut expected = got.clone();
            (table.unary)(function, &mut got);
            (oracle().unary)(function, &mut expected);
            same(&got, &expected, &format!("{function:?}"));
        });
    }
}

pub fn binary(table: &Kernels) {
    use Binary::{Add, Div, Max, Min, Mul, Sub};
    for function in [Add, Sub, Mul, Div, Min, Max] {
        over!(24, |(length in 0usize..100, seed in any::<u64>())| {
            let mut draw = Draw::new(seed);
            let (a, b, c) = (draw.wilds(length), draw.wilds(length), draw.wild());
            let (mut got, mut expected) = (vec![0.0; length], vec![0.0; length]);
            (table.binary)(function, &a, &b, &mut got);
            (oracle().binary)(function, &a, &b, &mut expected);
            same(&got, &expected, &format!("{function:?}"));
            (got, expected) = (a.clone(), a);
            (table.binary_scalar)(function, &mut got, c);
            (oracle().binary_scalar)(function, &mut expected, c);
            same(&got, &expected, &format!("{function:?} of scalar"));
            (got, expected) = (b.clone(), b);
            (table.scalar_binary)(function, c, &mut got);
            (oracle().scalar_binary)(function, c, &mut expected);
            same(&got, &expected, &format!("scalar {function:?}"));
        });
    }
}

pub fn repeat(table: &Kernels) {
    over!(64, |(channels in 1usize..70, cells in 0usize..5, seed in any::<u64>())| {
        let mut draw = Draw::new(seed);
        let (scale, shift) = (draw.wilds(channels), draw.wilds(channels));
        let mut got = draw.wilds(channels * cells);
        let mut expected = got.clone();
        (table.modulate)(&mut got, &scale, &shift);
        (oracle().modulate)(&mut expected, &scale, &shift);
        same(&got, &expected, "modulate");
        (table.scale_shift)(&mut got, &scale, &shift);
        (oracle().scale_shift)(&mut expected, &scale, &shift);
        same(&got, &expected, "scale_shift");
    });
}

pub fn quantise(table: &Kernels) {
    over!(128, |(length in 0usize..100, seed in any::<u64>(), offset in any::<bool>())| {
        let mut draw = Draw::new(seed);
        let offset = if offset { 128 } else { 0 };
        let mut values = draw.wilds(length);
        for value in values.iter_mut().step_by(3) {
            // Halves, to be rounded to even.
            *value = (draw.float(130.0)).floor() + 0.5;
        }
        let halves: Vec<f16> = values.iter().map(|value| f16::from_f32_const(*value)).collect();
        for inverse in [1.0, 0.37, draw.wild()] {
            for row in [Row::F32(&values), Row::F16(&halves)] {
                let (mut got, mut expected) = (vec![0; length], vec![0; length]);
                (table.quantise)(row, inverse, offset, &mut got);
                (oracle().quantise)(row, inverse, offset, &mut expected);
                assert_eq!(got, expected, "{row:?} by {inverse}");
            }
        }
    });
}
