//! Rounding to int8.

use crate::kernel::Row;

/// `clamp(round(x * inverse), -127, 127) + offset`.
pub fn quantise(values: Row<'_>, inverse: f32, offset: u8, out: &mut [u8]) {
    assert_eq!(values.len(), out.len(), "a row is quantised into one of another length");
    for (index, out) in out.iter_mut().enumerate() {
        let scaled = values.get(index) * inverse;
        // A not-a-number fails the first comparison and becomes -127.
        let scaled = if scaled > -127.0 { scaled } else { -127.0 };
        let scaled = if scaled < 127.0 { scaled } else { 127.0 };
        *out = (scaled.round_ties_even() as i32 + i32::from(offset)) as u8;
    }
}
