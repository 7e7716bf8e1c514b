//! Kernels for x86-64: AVX2 (with or without AVX-VNNI), AVX-512 with VNNI, and AMX beside it.
//!
//! Enters: arguments whose bounds were asserted (`check`). Leaves: the reference's bits. Never: a table offered
//! to a CPU without its features; `TABLES` pairs each with its test, and nothing else is visible from outside.

mod amx_gemm_i8;
mod avx2;
mod avx2_gemm_i8;
mod avx512;
mod avx512_gemm_i8;
mod avxvnni_gemm_i8;

/// Whether the CPU has what the float kernels of AVX2 need.
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

fn has_avxvnni() -> bool {
    has_avx2() && is_x86_feature_detected!("avxvnni")
}

fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni")
}

/// AVX-512, and int8 tiles that the system grants.
fn has_amx() -> bool {
    // Leaf 7, EDX: amx-tile is bit 24, amx-int8 bit 25.
    let tiles = || std::arch::x86_64::__cpuid_count(7, 0).edx >> 24 & 0b11 == 0b11;
    has_avx512() && tiles() && amx_gemm_i8::granted()
}

super::tables! {
    amx: avx512::KERNELS_AMX, has_amx;
    avx512: avx512::KERNELS, has_avx512;
    avxvnni: avx2::KERNELS_VNNI, has_avxvnni;
    avx2: avx2::KERNELS, has_avx2;
}
