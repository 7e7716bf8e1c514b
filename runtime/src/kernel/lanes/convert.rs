//! Between f16, f32 and int8.

use super::{Lanes, load_blocks, load_f16_part, load_part, load_row, store_f16_part, store_part};
use crate::kernel::{LANES, Row};
use half::f16;

/// See [`crate::kernel::Kernels::load_f16`].
#[inline(always)]
pub fn load_f16<L: Lanes>(src: &[f16], dst: &mut [f32]) {
    assert_eq!(src.len(), dst.len(), "a row is widened into one of another length");
    let ((src, src_rest), (dst, dst_rest)) = (src.as_chunks(), dst.as_chunks_mut());
    for (src, dst) in src.iter().zip(dst) {
        L::load_f16(src).store(dst);
    }
    store_part(load_f16_part::<L>(src_rest), dst_rest);
}

/// See [`crate::kernel::Kernels::store_f16`].
#[inline(always)]
pub fn store_f16<L: Lanes>(src: &[f32], dst: &mut [f16]) {
    assert_eq!(src.len(), dst.len(), "a row is rounded into one of another length");
    let ((src, src_rest), (dst, dst_rest)) = (src.as_chunks(), dst.as_chunks_mut());
    for (src, dst) in src.iter().zip(dst) {
        L::load(src).store_f16(dst);
    }
    store_f16_part(load_part::<L>(src_rest, 0.0), dst_rest);
}

/// See [`crate::kernel::Kernels::quantise`].
#[inline(always)]
pub fn quantise<L: Lanes>(values: Row<'_>, inverse: f32, offset: u8, out: &mut [u8]) {
    assert_eq!(values.len(), out.len(), "a row is quantised into one of another length");
    let inverse = L::splat(inverse);
    let (blocks, rest) = out.as_chunks_mut::<LANES>();
    let (fours, ones) = blocks.as_chunks_mut::<4>();
    let mut start = 0;
    for out in fours {
        L::quantise_four(load_blocks(values, start), inverse, offset, out);
        start += 4 * LANES;
    }
    let (low, high) = (L::splat(-127.0), L::splat(127.0));
    for out in ones {
        let value = load_row::<L>(values, start, start + LANES).mul(inverse);
        value.max(low).min(high).store_bytes(offset, out);
        start += LANES;
    }
    if !rest.is_empty() {
        let value = load_row::<L>(values, start, start + rest.len()).mul(inverse);
        let mut buffer = [0; LANES];
        value.max(low).min(high).store_bytes(offset, &mut buffer);
        let length = rest.len();
        rest.copy_from_slice(&buffer[..length]);
    }
}
