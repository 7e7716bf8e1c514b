//! Float kernels, written once over 16 lanes.
//!
//! Enters: a type with the operations of [`Lanes`], which each instruction set gives. Leaves: functions that
//! `float_kernels!` wraps for the table. Never: an `unsafe`, a closure or a call that is not inlined, because an
//! instruction set's operations are only fast (and only allowed) inside a function that enables it.
//!
//! Operations and their order are those of [`super::reference`]: same bits.

mod attention;
mod attention_i8;
mod binary;
mod convert;
mod finish;
mod gemm_f16;
mod instantiate;
mod math;
mod norm;
mod reduce;
mod unary;
mod window;

pub(super) use attention::attention;
pub(super) use attention_i8::{attention_i8, quantise_keys};
pub(super) use binary::{binary, binary_scalar, modulate, scalar_binary, scale_shift};
pub(super) use convert::{load_f16, quantise, store_f16};
pub(super) use finish::{accumulate_i8, finish_f32, finish_i8};
pub(super) use gemm_f16::{gemm_f16, vector_matrix};
pub(super) use instantiate::float_kernels;
pub(super) use norm::{layer_norm, rms_norm, softmax};
pub(super) use reduce::{group_moments, max, max_abs, sum};
pub(super) use unary::unary;
pub(super) use window::{blend, depthwise, pool, resize_row};

use super::{LANES, Row, RowMut};
use half::f16;

/// Sixteen f32 in the registers of one instruction set.
///
/// Every operation is exact to the bit as IEEE 754 and the doc lines say; none may be called but from a
/// function that enables the instruction set.
pub(super) trait Lanes: Copy {
    /// The value in every lane.
    fn splat(value: f32) -> Self;
    /// From memory.
    fn load(src: &[f32; LANES]) -> Self;
    /// To memory.
    fn store(self, dst: &mut [f32; LANES]);
    /// Widens.
    fn load_f16(src: &[f16; LANES]) -> Self;
    /// Rounds to nearest even.
    fn store_f16(self, dst: &mut [f16; LANES]);
    /// `acc - excess`, wrapping, rounded to f32.
    fn load_sums(acc: &[i32; LANES], excess: &[i32; LANES]) -> Self;
    /// `self + other`
    fn add(self, other: Self) -> Self;
    /// `self - other`
    fn sub(self, other: Self) -> Self;
    /// `self * other`
    fn mul(self, other: Self) -> Self;
    /// `self / other`
    fn div(self, other: Self) -> Self;
    /// `self * factor + summand`, rounded once.
    fn mul_add(self, factor: Self, summand: Self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Without the sign.
    fn abs(self) -> Self;
    /// With the other sign.
    fn neg(self) -> Self;
    /// With the sign of `sign`.
    fn copysign(self, sign: Self) -> Self;
    /// `self > other ? self : other`
    fn max(self, other: Self) -> Self;
    /// `self < other ? self : other`
    fn min(self, other: Self) -> Self;
    /// `self > other ? yes : no`
    fn if_greater(self, other: Self, yes: Self, no: Self) -> Self;
    /// `self` is a not-a-number `? yes : no`
    fn if_nan(self, yes: Self, no: Self) -> Self;
    /// `self * 2^n` for a whole `n` in -126..=128 and a result that is neither subnormal nor infinite.
    fn scale_by_power(self, n: Self) -> Self;
    /// `round_half_even(self) + offset` of values in -127..=127.
    fn store_bytes(self, offset: u8, dst: &mut [u8; LANES]);
    /// `round_half_even(value)` of values in 0..=127.
    #[inline(always)]
    fn store_bytes_four(values: [Self; 4], dst: &mut [[u8; LANES]; 4]) {
        for (value, dst) in values.into_iter().zip(dst) {
            value.store_bytes(0, dst);
        }
    }
    /// Rounded to f16, to nearest even, and widened again.
    #[inline(always)]
    fn round_f16(self) -> Self {
        let mut halves = [f16::ZERO; LANES];
        self.store_f16(&mut halves);
        Self::load_f16(&halves)
    }
    /// `round_half_even(clamp(value * inverse, -127, 127)) + offset`; a not-a-number gives -127.
    #[inline(always)]
    fn quantise_four(values: [Self; 4], inverse: Self, offset: u8, dst: &mut [[u8; LANES]; 4]) {
        let (low, high) = (Self::splat(-127.0), Self::splat(127.0));
        for (value, dst) in values.into_iter().zip(dst) {
            value.mul(inverse).max(low).min(high).store_bytes(offset, dst);
        }
    }
    /// Turns rows into columns.
    fn transpose(block: &mut [Self; LANES]);
}

/// Loads up to 16 values; lanes without one hold `pad`.
#[inline(always)]
fn load_part<L: Lanes>(src: &[f32], pad: f32) -> L {
    match src.try_into() {
        Ok(full) => L::load(full),
        Err(_) => {
            let mut buffer = [pad; LANES];
            buffer[..src.len()].copy_from_slice(src);
            L::load(&buffer)
        }
    }
}

/// Stores the first lanes to up to 16 values.
#[inline(always)]
fn store_part<L: Lanes>(value: L, dst: &mut [f32]) {
    match dst.try_into() {
        Ok(full) => value.store(full),
        Err(_) => {
            let mut buffer = [0.0; LANES];
            value.store(&mut buffer);
            let length = dst.len();
            dst.copy_from_slice(&buffer[..length]);
        }
    }
}

/// Loads up to 16 values, widened; lanes without one hold 0.
#[inline(always)]
fn load_f16_part<L: Lanes>(src: &[f16]) -> L {
    match src.try_into() {
        Ok(full) => L::load_f16(full),
        Err(_) => {
            let mut buffer = [f16::ZERO; LANES];
            buffer[..src.len()].copy_from_slice(src);
            L::load_f16(&buffer)
        }
    }
}

/// Rounds and stores the first lanes to up to 16 values.
#[inline(always)]
fn store_f16_part<L: Lanes>(value: L, dst: &mut [f16]) {
    match dst.try_into() {
        Ok(full) => value.store_f16(full),
        Err(_) => {
            let mut buffer = [f16::ZERO; LANES];
            value.store_f16(&mut buffer);
            let length = dst.len();
            dst.copy_from_slice(&buffer[..length]);
        }
    }
}

/// Loads values `start..end` (at most 16) of a row; lanes without one hold 0.
#[inline(always)]
fn load_row<L: Lanes>(row: Row<'_>, start: usize, end: usize) -> L {
    match row {
        Row::F16(values) => load_f16_part(&values[start..end]),
        Row::F32(values) => load_part(&values[start..end], 0.0),
    }
}

/// Stores the first lanes to values `start..end` (at most 16) of a row.
#[inline(always)]
fn store_row<L: Lanes>(value: L, row: &mut RowMut<'_>, start: usize, end: usize) {
    match row {
        RowMut::F16(values) => store_f16_part(value, &mut values[start..end]),
        RowMut::F32(values) => store_part(value, &mut values[start..end]),
    }
}

/// `N` times 16 values from `start` on.
///
/// One check of bounds for all, where a loop over parts would have one each.
#[inline(always)]
fn load_blocks<L: Lanes, const N: usize>(row: Row<'_>, start: usize) -> [L; N] {
    let mut blocks = [L::splat(0.0); N];
    match row {
        Row::F16(values) => {
            let values = &values[start..start + N * LANES].as_chunks().0[..N];
            for (block, values) in blocks.iter_mut().zip(values) {
                *block = L::load_f16(values);
            }
        }
        Row::F32(values) => {
            let values = &values[start..start + N * LANES].as_chunks().0[..N];
            for (block, values) in blocks.iter_mut().zip(values) {
                *block = L::load(values);
            }
        }
    }
    blocks
}

/// Stores `N` times 16 values from `start` on.
#[inline(always)]
fn store_blocks<L: Lanes, const N: usize>(blocks: [L; N], row: &mut RowMut<'_>, start: usize) {
    match row {
        RowMut::F16(values) => {
            let values = &mut values[start..start + N * LANES].as_chunks_mut().0[..N];
            for (block, values) in blocks.into_iter().zip(values) {
                block.store_f16(values);
            }
        }
        RowMut::F32(values) => {
            let values = &mut values[start..start + N * LANES].as_chunks_mut().0[..N];
            for (block, values) in blocks.into_iter().zip(values) {
                block.store(values);
            }
        }
    }
}

/// The lanes as an array.
#[inline(always)]
fn to_array<L: Lanes>(value: L) -> [f32; LANES] {
    let mut array = [0.0; LANES];
    value.store(&mut array);
    array
}
