//! Between f16, f32 and int8.

use super::{Lanes, load_f16_part, load_part, load_row, store_f16_part, store_part};
use crate::kernel::{LANES, Row};
use half::f16;

/// See [`crate::kernel::Kernels::load_f16`].
#[inline(always)]
pub fn load_f16<L: Lanes>(src: &[f16], dst: &mut [f32]) {
    assert_eq!(src.len(), dst.len(), "a row is widened into one of another length");
    for (src, dst) in src.chunks(LANES).zip(dst.chunks_mut(LANES)) {
        store_part(load_f16_part::<L>(src), dst);
    }
}

/// See [`crate::kernel::Kernels::store_f16`].
#[inline(always)]
pub fn store_f16<L: Lanes>(src: &[f32], dst: &mut [f16]) {
    assert_eq!(src.len(), dst.len(), "a row is rounded into one of another length");
    for (src, dst) in src.chunks(LANES).zip(dst.chunks_mut(LANES)) {
        store_f16_part(load_part::<L>(src, 0.0), dst);
    }
}

/// See [`crate::kernel::Kernels::quantise`].
#[inline(always)]
pub fn quantise<L: Lanes>(values: Row<'_>, inverse: f32, offset: u8, out: &mut [u8]) {
    assert_eq!(values.len(), out.len(), "a row is quantised into one of another length");
    let inverse = L::splat(inverse);
    let (low, high) = (L::splat(-127.0), L::splat(127.0));
    for (index, out) in out.chunks_mut(LANES).enumerate() {
        let start = index * LANES;
        let scaled = load_row::<L>(values, start, start + out.len()).mul(inverse);
        let scaled = scaled.max(low).min(high);
        match out.try_into() {
            Ok(full) => scaled.store_bytes(offset, full),
            Err(_) => {
                let mut buffer = [0; LANES];
                scaled.store_bytes(offset, &mut buffer);
                let length = out.len();
                out.copy_from_slice(&buffer[..length]);
            }
        }
    }
}
