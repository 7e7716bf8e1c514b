//! Sixteen f32 in one AVX-512 register, and the table made of them.

use std::arch::x86_64::*;

use super::super::lanes::Lanes;
use super::super::{Kernels, LANES, lanes};
use super::{amx_gemm_i8, avx512_gemm_i8};
use half::f16;

/// The float kernels of AVX-512 with its VNNI product.
pub const KERNELS: Kernels = float_kernels("avx512", avx512_gemm_i8::GEMM_I8);

/// The float kernels of AVX-512 with the product of AMX.
pub const KERNELS_AMX: Kernels = float_kernels("amx", amx_gemm_i8::GEMM_I8);

lanes::float_kernels!(
    Zmm,
    "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c",
    "avx512_gemm_f16_12x2",
    12 x 2,
    attention: 8 x 2
);

#[derive(Clone, Copy)]
struct Zmm(__m512);

/// One instruction of the set that the module's kernels enable.
macro_rules! op {
    ($call:expr) => {
        // SAFETY: lanes are used only inside functions that enable the instruction set; pointers come from
        // references to arrays of exactly the size that is read or written, and need no alignment.
        unsafe { $call }
    };
}

impl Zmm {
    /// Rounded half to even and saturated to int8, in order.
    #[inline(always)]
    fn narrow(values: [Self; 4]) -> __m512i {
        let mut whole = [op!(_mm512_setzero_si512()); 4];
        for (whole, value) in whole.iter_mut().zip(values) {
            *whole = op!(_mm512_cvtps_epi32(value.0));
        }
        let [a, b, c, d] = whole;
        let (ab, cd) = (op!(_mm512_packs_epi32(a, b)), op!(_mm512_packs_epi32(c, d)));
        // Quarters hold a part of each of the four: put these together.
        let bytes = op!(_mm512_packs_epi16(ab, cd));
        let order = op!(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
        op!(_mm512_permutexvar_epi32(order, bytes))
    }
}

impl Lanes for Zmm {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Zmm(op!(_mm512_set1_ps(value)))
    }
    #[inline(always)]
    fn load(src: &[f32; LANES]) -> Self {
        Zmm(op!(_mm512_loadu_ps(src.as_ptr())))
    }
    #[inline(always)]
    fn store(self, dst: &mut [f32; LANES]) {
        op!(_mm512_storeu_ps(dst.as_mut_ptr(), self.0));
    }
    #[inline(always)]
    fn load_f16(src: &[f16; LANES]) -> Self {
        let halves = op!(_mm256_loadu_si256(src.as_ptr().cast()));
        Zmm(op!(_mm512_cvtph_ps(halves)))
    }
    #[inline(always)]
    fn store_f16(self, dst: &mut [f16; LANES]) {
        let halves = op!(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
        op!(_mm256_storeu_si256(dst.as_mut_ptr().cast(), halves));
    }
    #[inline(always)]
    fn load_sums(acc: &[i32; LANES], excess: &[i32; LANES]) -> Self {
        let acc = op!(_mm512_loadu_epi32(acc.as_ptr()));
        let excess = op!(_mm512_loadu_epi32(excess.as_ptr()));
        let exact = op!(_mm512_sub_epi32(acc, excess));
        Zmm(op!(_mm512_cvtepi32_ps(exact)))
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Zmm(op!(_mm512_add_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Zmm(op!(_mm512_sub_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Zmm(op!(_mm512_mul_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Zmm(op!(_mm512_div_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, summand: Self) -> Self {
        Zmm(op!(_mm512_fmadd_ps(self.0, factor.0, summand.0)))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Zmm(op!(_mm512_sqrt_ps(self.0)))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Zmm(op!(_mm512_abs_ps(self.0)))
    }
    #[inline(always)]
    fn neg(self) -> Self {
        Zmm(op!(_mm512_xor_ps(self.0, Self::splat(-0.0).0)))
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        let bit = op!(_mm512_and_ps(sign.0, Self::splat(-0.0).0));
        Zmm(op!(_mm512_or_ps(self.abs().0, bit)))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Zmm(op!(_mm512_max_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Zmm(op!(_mm512_min_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn if_greater(self, other: Self, yes: Self, no: Self) -> Self {
        let mask = op!(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, other.0));
        Zmm(op!(_mm512_mask_blend_ps(mask, no.0, yes.0)))
    }
    #[inline(always)]
    fn if_nan(self, yes: Self, no: Self) -> Self {
        let mask = op!(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0));
        Zmm(op!(_mm512_mask_blend_ps(mask, no.0, yes.0)))
    }
    #[inline(always)]
    fn scale_by_power(self, n: Self) -> Self {
        Zmm(op!(_mm512_scalef_ps(self.0, n.0)))
    }
    #[inline(always)]
    fn store_bytes(self, offset: u8, dst: &mut [u8; LANES]) {
        let whole = op!(_mm512_cvtps_epi32(self.0));
        let bytes = op!(_mm512_cvtepi32_epi8(whole));
        let offset = op!(_mm_set1_epi8(offset as i8));
        let bytes = op!(_mm_add_epi8(bytes, offset));
        op!(_mm_storeu_si128(dst.as_mut_ptr().cast(), bytes));
    }
    #[inline(always)]
    fn store_bytes_four(values: [Self; 4], dst: &mut [[u8; LANES]; 4]) {
        let bytes = Self::narrow(values);
        op!(_mm512_storeu_epi8(dst.as_flattened_mut().as_mut_ptr().cast(), bytes));
    }
    #[inline(always)]
    fn round_f16(self) -> Self {
        let halves = op!(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
        Zmm(op!(_mm512_cvtph_ps(halves)))
    }
    #[inline(always)]
    fn quantise_four(values: [Self; 4], inverse: Self, offset: u8, dst: &mut [[u8; LANES]; 4]) {
        // A not-a-number passes the minimum as its second operand, becomes the least i32 and then -127.
        let high = Self::splat(127.0);
        let bytes = Self::narrow(values.map(|value| high.min(value.mul(inverse))));
        let (low, offset) = (op!(_mm512_set1_epi8(-127)), op!(_mm512_set1_epi8(offset as i8)));
        let bytes = op!(_mm512_max_epi8(bytes, low));
        let bytes = op!(_mm512_add_epi8(bytes, offset));
        op!(_mm512_storeu_epi8(dst.as_flattened_mut().as_mut_ptr().cast(), bytes));
    }
    #[inline(always)]
    fn transpose(block: &mut [Self; LANES]) {
        // Pairs of lanes, of pairs, of 128-bit quarters, of halves.
        let mut a = *block;
        for i in 0..8 {
            let (low, high) = (block[2 * i].0, block[2 * i + 1].0);
            a[2 * i] = Zmm(op!(_mm512_unpacklo_ps(low, high)));
            a[2 * i + 1] = Zmm(op!(_mm512_unpackhi_ps(low, high)));
        }
        let mut b = a;
        for i in 0..4 {
            for j in 0..2 {
                let (low, high) = (a[4 * i + j].0, a[4 * i + j + 2].0);
                b[4 * i + 2 * j] = Zmm(op!(_mm512_shuffle_ps::<0b01_00_01_00>(low, high)));
                b[4 * i + 2 * j + 1] = Zmm(op!(_mm512_shuffle_ps::<0b11_10_11_10>(low, high)));
            }
        }
        // b[4 i + c] holds, in quarter q, column 4 q + c of rows 4 i..4 i + 4.
        for c in 0..4 {
            let (r0, r1, r2, r3) = (b[c].0, b[4 + c].0, b[8 + c].0, b[12 + c].0);
            let even01 = op!(_mm512_shuffle_f32x4::<0b10_00_10_00>(r0, r1));
            let odd01 = op!(_mm512_shuffle_f32x4::<0b11_01_11_01>(r0, r1));
            let even23 = op!(_mm512_shuffle_f32x4::<0b10_00_10_00>(r2, r3));
            let odd23 = op!(_mm512_shuffle_f32x4::<0b11_01_11_01>(r2, r3));
            block[c] = Zmm(op!(_mm512_shuffle_f32x4::<0b10_00_10_00>(even01, even23)));
            block[8 + c] = Zmm(op!(_mm512_shuffle_f32x4::<0b11_01_11_01>(even01, even23)));
            block[4 + c] = Zmm(op!(_mm512_shuffle_f32x4::<0b10_00_10_00>(odd01, odd23)));
            block[12 + c] = Zmm(op!(_mm512_shuffle_f32x4::<0b11_01_11_01>(odd01, odd23)));
        }
    }
}
