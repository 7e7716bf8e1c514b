//! Sixteen f32 in two AVX2 registers, and the tables made of them.

use std::arch::x86_64::*;

use super::super::lanes::Lanes;
use super::super::{Kernels, LANES, lanes};
use super::{avx2_gemm_i8, avxvnni_gemm_i8};
use half::f16;

/// The float kernels of AVX2 with its product in 16-bit pairs.
pub const KERNELS: Kernels = float_kernels("avx2", avx2_gemm_i8::GEMM_I8);
/// The float kernels of AVX2 with the product of AVX-VNNI.
pub const KERNELS_VNNI: Kernels = float_kernels("avxvnni", avxvnni_gemm_i8::GEMM_I8);

lanes::float_kernels!(Ymm2, "avx2,fma,f16c", "avx2_gemm_f16_6x1", 6 x 1, attention: 4 x 1);

#[derive(Clone, Copy)]
struct Ymm2(__m256, __m256);

/// One instruction of the set that the module's kernels enable.
macro_rules! op {
    ($call:expr) => {
        // SAFETY: lanes are used only inside functions that enable the instruction set; pointers come from
        // references to arrays of exactly the size that is read or written, and need no alignment.
        unsafe { $call }
    };
}

/// The same instruction on both registers.
macro_rules! both {
    ($call:ident($($arg:expr),*)) => {
        Ymm2(op!($call($($arg.0),*)), op!($call($($arg.1),*)))
    };
}

/// The two halves of an array.
#[inline(always)]
fn halves<T>(array: &[T; LANES]) -> (*const T, *const T) {
    (array.as_ptr(), array[8..].as_ptr())
}

/// `acc - excess` of eight.
#[inline(always)]
fn load_half_sums(acc: *const i32, excess: *const i32) -> __m256 {
    let acc = op!(_mm256_loadu_si256(acc.cast()));
    let excess = op!(_mm256_loadu_si256(excess.cast()));
    let exact = op!(_mm256_sub_epi32(acc, excess));
    op!(_mm256_cvtepi32_ps(exact))
}

/// `2^(n - 1)` of eight whole numbers.
#[inline(always)]
fn half_power(n: __m256) -> __m256 {
    let whole = op!(_mm256_cvtps_epi32(n));
    let bias = op!(_mm256_set1_epi32(126));
    let exponent = op!(_mm256_add_epi32(whole, bias));
    let bits = op!(_mm256_slli_epi32::<23>(exponent));
    op!(_mm256_castsi256_ps(bits))
}

impl Ymm2 {
    /// `yes` where the mask has its sign bits, else `no`.
    #[inline(always)]
    fn blend(mask: Self, yes: Self, no: Self) -> Self {
        both!(_mm256_blendv_ps(no, yes, mask))
    }
}

impl Lanes for Ymm2 {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        let half = op!(_mm256_set1_ps(value));
        Ymm2(half, half)
    }
    #[inline(always)]
    fn load(src: &[f32; LANES]) -> Self {
        let (low, high) = halves(src);
        Ymm2(op!(_mm256_loadu_ps(low)), op!(_mm256_loadu_ps(high)))
    }
    #[inline(always)]
    fn store(self, dst: &mut [f32; LANES]) {
        let (low, high) = dst.split_at_mut(8);
        op!(_mm256_storeu_ps(low.as_mut_ptr(), self.0));
        op!(_mm256_storeu_ps(high.as_mut_ptr(), self.1));
    }
    #[inline(always)]
    fn load_f16(src: &[f16; LANES]) -> Self {
        let (low, high) = halves(src);
        let low = op!(_mm_loadu_si128(low.cast()));
        let high = op!(_mm_loadu_si128(high.cast()));
        Ymm2(op!(_mm256_cvtph_ps(low)), op!(_mm256_cvtph_ps(high)))
    }
    #[inline(always)]
    fn store_f16(self, dst: &mut [f16; LANES]) {
        let (low, high) = dst.split_at_mut(8);
        let a = op!(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
        op!(_mm_storeu_si128(low.as_mut_ptr().cast(), a));
        let b = op!(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.1));
        op!(_mm_storeu_si128(high.as_mut_ptr().cast(), b));
    }
    #[inline(always)]
    fn load_sums(acc: &[i32; LANES], excess: &[i32; LANES]) -> Self {
        let ((acc_low, acc_high), (low, high)) = (halves(acc), halves(excess));
        Ymm2(load_half_sums(acc_low, low), load_half_sums(acc_high, high))
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        both!(_mm256_add_ps(self, other))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        both!(_mm256_sub_ps(self, other))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        both!(_mm256_mul_ps(self, other))
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        both!(_mm256_div_ps(self, other))
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, summand: Self) -> Self {
        both!(_mm256_fmadd_ps(self, factor, summand))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        both!(_mm256_sqrt_ps(self))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        let sign = Self::splat(-0.0);
        both!(_mm256_andnot_ps(sign, self))
    }
    #[inline(always)]
    fn neg(self) -> Self {
        let sign = Self::splat(-0.0);
        both!(_mm256_xor_ps(self, sign))
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        let bit = Self::splat(-0.0);
        let bit = both!(_mm256_and_ps(sign, bit));
        let size = self.abs();
        both!(_mm256_or_ps(size, bit))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        both!(_mm256_max_ps(self, other))
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        both!(_mm256_min_ps(self, other))
    }
    #[inline(always)]
    fn if_greater(self, other: Self, yes: Self, no: Self) -> Self {
        let low = op!(_mm256_cmp_ps::<_CMP_GT_OQ>(self.0, other.0));
        let high = op!(_mm256_cmp_ps::<_CMP_GT_OQ>(self.1, other.1));
        Self::blend(Ymm2(low, high), yes, no)
    }
    #[inline(always)]
    fn if_nan(self, yes: Self, no: Self) -> Self {
        let low = op!(_mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0));
        let high = op!(_mm256_cmp_ps::<_CMP_UNORD_Q>(self.1, self.1));
        Self::blend(Ymm2(low, high), yes, no)
    }
    #[inline(always)]
    fn scale_by_power(self, n: Self) -> Self {
        // 2^(n - 1) and then 2: n is 128 at most, which no exponent holds.
        let power = Ymm2(half_power(n.0), half_power(n.1));
        self.mul(power).mul(Self::splat(2.0))
    }
    #[inline(always)]
    fn store_bytes(self, offset: u8, dst: &mut [u8; LANES]) {
        let low = op!(_mm256_cvtps_epi32(self.0));
        let high = op!(_mm256_cvtps_epi32(self.1));
        // Packing works on each 128-bit half by itself; the permutation puts the halves in order.
        let words = op!(_mm256_packs_epi32(low, high));
        let words = op!(_mm256_permute4x64_epi64::<0b11_01_10_00>(words));
        let (first, second) =
            (op!(_mm256_castsi256_si128(words)), op!(_mm256_extracti128_si256::<1>(words)));
        let bytes = op!(_mm_packs_epi16(first, second));
        let offset = op!(_mm_set1_epi8(offset as i8));
        let bytes = op!(_mm_add_epi8(bytes, offset));
        op!(_mm_storeu_si128(dst.as_mut_ptr().cast(), bytes));
    }
    #[inline(always)]
    fn transpose(block: &mut [Self; LANES]) {
        let mut rows = [[0f32; LANES]; LANES];
        for (row, lanes) in rows.iter_mut().zip(*block) {
            lanes.store(row);
        }
        for (column, lanes) in block.iter_mut().enumerate() {
            let mut values = [0f32; LANES];
            for (value, row) in values.iter_mut().zip(&rows) {
                *value = row[column];
            }
            *lanes = Self::load(&values);
        }
    }
}
