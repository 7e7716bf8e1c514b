//! f16 to f32 and back, in software.

use half::f16;

/// Widens; exact.
pub fn load_f16(src: &[f16], dst: &mut [f32]) {
    assert_eq!(src.len(), dst.len(), "a row is widened into one of another length");
    for (&value, out) in src.iter().zip(dst) {
        *out = f16::to_f32_const(value);
    }
}

/// Rounds to nearest even.
pub fn store_f16(src: &[f32], dst: &mut [f16]) {
    assert_eq!(src.len(), dst.len(), "a row is rounded into one of another length");
    for (&value, out) in src.iter().zip(dst) {
        *out = f16::from_f32_const(value);
    }
}
