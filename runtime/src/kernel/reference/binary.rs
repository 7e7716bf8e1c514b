//! Functions of two values, and of a value with two that repeat.

use crate::graph::Binary;

/// One pair.
fn apply(function: Binary, a: f32, b: f32) -> f32 {
    match function {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Min => {
            if a < b {
                a
            } else {
                b
            }
        }
        Binary::Max => {
            if a > b {
                a
            } else {
                b
            }
        }
    }
}

/// `out = function(a, b)`.
pub fn binary(function: Binary, a: &[f32], b: &[f32], out: &mut [f32]) {
    assert!(a.len() == out.len() && b.len() == out.len(), "operands differ in length");
    for ((&a, &b), out) in a.iter().zip(b).zip(out) {
        *out = apply(function, a, b);
    }
}

/// `values = function(values, b)`.
pub fn binary_scalar(function: Binary, values: &mut [f32], b: f32) {
    for value in values {
        *value = apply(function, *value, b);
    }
}

/// `values = function(a, values)`.
pub fn scalar_binary(function: Binary, a: f32, values: &mut [f32]) {
    for value in values {
        *value = apply(function, a, *value);
    }
}

/// `values = values * (1 + scale) + shift`.
pub fn modulate(values: &mut [f32], scale: &[f32], shift: &[f32]) {
    assert_eq!(scale.len(), shift.len(), "scale and shift differ in length");
    assert!(values.len().is_multiple_of(scale.len()), "scale does not divide the row");
    for (index, value) in values.iter_mut().enumerate() {
        let channel = index % scale.len();
        *value = value.mul_add(1.0 + scale[channel], shift[channel]);
    }
}

/// `values = values * scale + shift`.
pub fn scale_shift(values: &mut [f32], scale: &[f32], shift: &[f32]) {
    assert_eq!(scale.len(), shift.len(), "scale and shift differ in length");
    assert!(values.len().is_multiple_of(scale.len()), "scale does not divide the row");
    for (index, value) in values.iter_mut().enumerate() {
        let channel = index % scale.len();
        *value = value.mul_add(scale[channel], shift[channel]);
    }
}
