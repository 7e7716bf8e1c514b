//! Sixteen f32 in four NEON registers, and the tables made of them.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::lanes::Lanes;
use super::super::{Kernels, LANES, lanes};
use super::{dotprod_gemm_i8, i8mm_gemm_i8, neon_gemm_i8};
use half::f16;

/// The float kernels of NEON with its product of bytes in 16-bit pairs.
pub const KERNELS: Kernels = float_kernels("neon", neon_gemm_i8::GEMM_I8);
/// The float kernels of NEON with the product of `sdot`.
pub const KERNELS_DOTPROD: Kernels = float_kernels("dotprod", dotprod_gemm_i8::GEMM_I8);
/// The float kernels of NEON with the product of `smmla`.
pub const KERNELS_I8MM: Kernels = float_kernels("i8mm", i8mm_gemm_i8::GEMM_I8);

lanes::float_kernels!(Quads, "neon", "neon_gemm_f16_6x1", 6 x 1, attention: 4 x 1);

#[derive(Clone, Copy)]
struct Quads([float32x4_t; 4]);

/// One instruction of the set that the module's kernels enable.
macro_rules! op {
    ($call:expr) => {
        // SAFETY: every aarch64 has NEON; pointers come from references to arrays of at least the size that
        // is read or written.
        unsafe { $call }
    };
}

/// The same instruction on all four registers.
macro_rules! each {
    ($call:ident($($arg:expr),*)) => {
        Quads([
            op!($call($($arg.0[0]),*)),
            op!($call($($arg.0[1]),*)),
            op!($call($($arg.0[2]),*)),
            op!($call($($arg.0[3]),*)),
        ])
    };
}

/// The same function on all four registers.
macro_rules! map {
    ($call:ident($($arg:expr),*)) => {
        Quads([
            $call($($arg.0[0]),*),
            $call($($arg.0[1]),*),
            $call($($arg.0[2]),*),
            $call($($arg.0[3]),*),
        ])
    };
}

#[inline(always)]
fn widen(halves: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: `fcvtl` reads one register and writes another; every aarch64 has it.
    unsafe {
        asm!("fcvtl {wide:v}.4s, {halves:v}.4h", wide = out(vreg) wide, halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

#[inline(always)]
fn narrow(low: float32x4_t, high: float32x4_t) -> uint16x8_t {
    let halves: uint16x8_t;
    // SAFETY: both read one register and write half of another; every aarch64 has them.
    unsafe {
        asm!("fcvtn {halves:v}.4h, {low:v}.4s", "fcvtn2 {halves:v}.8h, {high:v}.4s",
            halves = out(vreg) halves, low = in(vreg) low, high = in(vreg) high,
            options(pure, nomem, nostack, preserves_flags));
    }
    halves
}

/// `yes` where the mask is all ones, `no` where it is 0.
#[inline(always)]
fn select(mask: uint32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t {
    op!(vbslq_f32(mask, yes, no))
}

#[inline(always)]
fn greater(a: float32x4_t, b: float32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t {
    select(op!(vcgtq_f32(a, b)), yes, no)
}

#[inline(always)]
fn unless_equal(a: float32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t {
    select(op!(vceqq_f32(a, a)), no, yes)
}

#[inline(always)]
fn with_sign(a: float32x4_t, sign: float32x4_t) -> float32x4_t {
    let bit = op!(vdupq_n_u32(0x8000_0000));
    select(bit, sign, a)
}

/// `2^(n - 1)` of whole numbers.
#[inline(always)]
fn half_power(n: float32x4_t) -> float32x4_t {
    let whole = op!(vcvtnq_s32_f32(n));
    let bias = op!(vdupq_n_s32(126));
    let exponent = op!(vaddq_s32(whole, bias));
    let bits = op!(vshlq_n_s32::<23>(exponent));
    op!(vreinterpretq_f32_s32(bits))
}

#[inline(always)]
fn fused(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    op!(vfmaq_f32(c, a, b))
}

impl Lanes for Quads {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Quads([op!(vdupq_n_f32(value)); 4])
    }
    #[inline(always)]
    fn load(src: &[f32; LANES]) -> Self {
        let at = src.as_ptr();
        Quads([
            op!(vld1q_f32(at)),
            op!(vld1q_f32(at.wrapping_add(4))),
            op!(vld1q_f32(at.wrapping_add(8))),
            op!(vld1q_f32(at.wrapping_add(12))),
        ])
    }
    #[inline(always)]
    fn store(self, dst: &mut [f32; LANES]) {
        let at = dst.as_mut_ptr();
        op!(vst1q_f32(at, self.0[0]));
        op!(vst1q_f32(at.wrapping_add(4), self.0[1]));
        op!(vst1q_f32(at.wrapping_add(8), self.0[2]));
        op!(vst1q_f32(at.wrapping_add(12), self.0[3]));
    }
    #[inline(always)]
    fn load_f16(src: &[f16; LANES]) -> Self {
        let at = src.as_ptr().cast::<u16>();
        Quads([
            widen(op!(vld1_u16(at))),
            widen(op!(vld1_u16(at.wrapping_add(4)))),
            widen(op!(vld1_u16(at.wrapping_add(8)))),
            widen(op!(vld1_u16(at.wrapping_add(12)))),
        ])
    }
    #[inline(always)]
    fn store_f16(self, dst: &mut [f16; LANES]) {
        let at = dst.as_mut_ptr().cast::<u16>();
        op!(vst1q_u16(at, narrow(self.0[0], self.0[1])));
        op!(vst1q_u16(at.wrapping_add(8), narrow(self.0[2], self.0[3])));
    }
    #[inline(always)]
    fn load_sums(acc: &[i32; LANES], excess: &[i32; LANES]) -> Self {
        let mut lanes = Self::splat(0.0);
        for (index, lanes) in lanes.0.iter_mut().enumerate() {
            let acc = op!(vld1q_s32(acc.as_ptr().wrapping_add(4 * index)));
            let excess = op!(vld1q_s32(excess.as_ptr().wrapping_add(4 * index)));
            let exact = op!(vsubq_s32(acc, excess));
            *lanes = op!(vcvtq_f32_s32(exact));
        }
        lanes
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        each!(vaddq_f32(self, other))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        each!(vsubq_f32(self, other))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        each!(vmulq_f32(self, other))
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        each!(vdivq_f32(self, other))
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, summand: Self) -> Self {
        map!(fused(self, factor, summand))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        each!(vsqrtq_f32(self))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        each!(vabsq_f32(self))
    }
    #[inline(always)]
    fn neg(self) -> Self {
        each!(vnegq_f32(self))
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        map!(with_sign(self, sign))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        map!(greater(self, other, self, other))
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        map!(greater(other, self, self, other))
    }
    #[inline(always)]
    fn if_greater(self, other: Self, yes: Self, no: Self) -> Self {
        map!(greater(self, other, yes, no))
    }
    #[inline(always)]
    fn if_nan(self, yes: Self, no: Self) -> Self {
        map!(unless_equal(self, yes, no))
    }
    #[inline(always)]
    fn scale_by_power(self, n: Self) -> Self {
        // 2^(n - 1) and then 2: n is 128 at most, which no exponent holds.
        let power = map!(half_power(n));
        self.mul(power).mul(Self::splat(2.0))
    }
    #[inline(always)]
    fn store_bytes(self, offset: u8, dst: &mut [u8; LANES]) {
        let mut words = [op!(vdup_n_s16(0)); 4];
        for (words, lanes) in words.iter_mut().zip(self.0) {
            let whole = op!(vcvtnq_s32_f32(lanes));
            *words = op!(vmovn_s32(whole));
        }
        let low = op!(vcombine_s16(words[0], words[1]));
        let high = op!(vcombine_s16(words[2], words[3]));
        let (low, high) = (op!(vmovn_s16(low)), op!(vmovn_s16(high)));
        let bytes = op!(vcombine_s8(low, high));
        let bytes = op!(vreinterpretq_u8_s8(bytes));
        let offset = op!(vdupq_n_u8(offset));
        let bytes = op!(vaddq_u8(bytes, offset));
        op!(vst1q_u8(dst.as_mut_ptr(), bytes));
    }
    #[inline(always)]
    fn transpose(block: &mut [Self; LANES]) {
        let rows = *block;
        for (i, four) in rows.chunks_exact(4).enumerate() {
            for j in 0..4 {
                let [a, b, c, d] = [four[0].0[j], four[1].0[j], four[2].0[j], four[3].0[j]];
                let (ab_even, ab_odd) = (op!(vtrn1q_f32(a, b)), op!(vtrn2q_f32(a, b)));
                let (cd_even, cd_odd) = (op!(vtrn1q_f32(c, d)), op!(vtrn2q_f32(c, d)));
                block[4 * j].0[i] = low_halves(ab_even, cd_even);
                block[4 * j + 1].0[i] = low_halves(ab_odd, cd_odd);
                block[4 * j + 2].0[i] = high_halves(ab_even, cd_even);
                block[4 * j + 3].0[i] = high_halves(ab_odd, cd_odd);
            }
        }
    }
}

#[inline(always)]
fn low_halves(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    let (a, b) = (op!(vreinterpretq_f64_f32(a)), op!(vreinterpretq_f64_f32(b)));
    let halves = op!(vtrn1q_f64(a, b));
    op!(vreinterpretq_f32_f64(halves))
}

#[inline(always)]
fn high_halves(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    let (a, b) = (op!(vreinterpretq_f64_f32(a)), op!(vreinterpretq_f64_f32(b)));
    let halves = op!(vtrn2q_f64(a, b));
    op!(vreinterpretq_f32_f64(halves))
}
