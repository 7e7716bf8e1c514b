//! Kernels for aarch64: NEON (A53, A72), with dot products (A55, A76), with matrix products (A510, X-series).
//!
//! Enters: arguments whose bounds were asserted (`check`). Leaves: the reference's bits. Never: a table offered
//! to a CPU without its features; `TABLES` pairs each with its test, and nothing else is visible from outside.
//!
//! f16 conversions, `sdot` and `smmla` are inline assembly: their intrinsics are not stable.

mod dotprod_gemm_i8;
mod i8mm_gemm_i8;
mod neon;
mod neon_gemm_i8;

use std::arch::is_aarch64_feature_detected;

fn has_neon() -> bool {
    is_aarch64_feature_detected!("neon")
}

fn has_dotprod() -> bool {
    has_neon() && is_aarch64_feature_detected!("dotprod")
}

/// Every CPU with matrix products has dot products too; the kernel uses both.
fn has_i8mm() -> bool {
    has_dotprod() && is_aarch64_feature_detected!("i8mm")
}

super::tables! {
    i8mm: neon::KERNELS_I8MM, has_i8mm;
    dotprod: neon::KERNELS_DOTPROD, has_dotprod;
    neon: neon::KERNELS, has_neon;
}
