//! What every table must do: the reference's bits, over odd shapes and wild values.
//!
//! Registering a table makes one test of each property here; on a CPU that cannot run the table they pass without
//! looking, and say so.

mod attention;
mod attention_i8;
mod pointwise;
mod products;
mod rows;
mod windows;

pub use attention::attention;
pub use attention_i8::{attention_i8, attention_i8_wild};
pub use pointwise::{binary, convert, quantise, repeat, unary};
pub use products::{epilogues, gemm_f16, gemm_i8, vector_matrix};
pub use rows::{moments, norms, reductions};
pub use windows::{depthwise, pool, resize};

use super::{Kernels, Row};
use half::f16;

/// One test of each property, for the table of this name.
macro_rules! of_table {
    ($name:expr) => {
        $crate::kernel::properties::of_table! { $name;
            convert unary binary repeat quantise reductions moments norms gemm_i8 epilogues
            gemm_f16 vector_matrix attention attention_i8 attention_i8_wild depthwise pool resize }
    };
    ($name:expr; $($property:ident)*) => {
        $(
            #[test]
            fn $property() {
                match $crate::kernel::Kernels::by_name($name) {
                    Ok(table) => $crate::kernel::properties::$property(table),
                    Err(error) => eprintln!("not run: {error}"),
                }
            }
        )*
    };
}
pub(in crate::kernel) use of_table;

/// Runs a property over many random inputs.
macro_rules! over {
    ($cases:expr, $($body:tt)*) => {
        proptest::proptest!(proptest::prelude::ProptestConfig::with_cases($cases), $($body)*)
    };
}
use over;

/// A small generator, so that one seed stands for a whole slice.
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Draw(seed)
    }

    pub fn bits(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// -limit..limit
    pub fn float(&mut self, limit: f32) -> f32 {
        ((self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0) * limit
    }

    /// Mostly of moderate size; one in eight is a zero, an infinity, a subnormal or any other bits.
    pub fn wild(&mut self) -> f32 {
        const EDGES: [f32; 12] = [
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            f32::MIN,
            f32::MIN_POSITIVE,
            1e-40,
            65504.0,
            65520.0,
            -86.6,
            88.722_83,
        ];
        match self.bits() % 16 {
            0 => EDGES[(self.bits() % 12) as usize],
            1 => f32::from_bits(self.bits() as u32),
            2 => self.float(1e-6),
            3 => self.float(100.0),
            _ => self.float(4.0),
        }
    }

    pub fn floats(&mut self, length: usize, limit: f32) -> Vec<f32> {
        (0..length).map(|_| self.float(limit)).collect()
    }

    pub fn wilds(&mut self, length: usize) -> Vec<f32> {
        (0..length).map(|_| self.wild()).collect()
    }

    pub fn halves(&mut self, length: usize, limit: f32) -> Vec<f16> {
        (0..length).map(|_| f16::from_f32_const(self.float(limit))).collect()
    }

    /// -127..=127
    pub fn int8(&mut self) -> i8 {
        ((self.bits() % 255) as i16 - 127) as i8
    }
}

/// Rows as f16 or f32 of the same drawn values.
pub struct Stored {
    halves: Option<Vec<f16>>,
    floats: Vec<f32>,
}

impl Stored {
    pub fn new(draw: &mut Draw, length: usize, limit: f32, as_f16: bool) -> Self {
        let halves = as_f16.then(|| draw.halves(length, limit));
        Stored { halves, floats: draw.floats(length, limit) }
    }

    pub fn row(&self) -> Row<'_> {
        match &self.halves {
            Some(halves) => Row::F16(halves),
            None => Row::F32(&self.floats),
        }
    }
}

/// Asserts the same bits, or two not-a-numbers.
#[track_caller]
pub fn same(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let equal = got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan());
        assert!(equal, "{what}: value {index} is {got:e}, the reference says {expected:e}");
    }
}

/// As [`same`], of f16.
#[track_caller]
pub fn same_f16(got: &[f16], expected: &[f16], what: &str) {
    let widen = |values: &[f16]| values.iter().map(|v| f16::to_f32_const(*v)).collect::<Vec<_>>();
    same(&widen(got), &widen(expected), what);
}

/// The reference.
pub fn oracle() -> &'static Kernels {
    &super::reference::KERNELS
}
