//! Sums, maxima and moments.

use crate::kernel::{LANES, Moments, Row};

/// The sum of 16 lanes: lane `i` and lane `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
pub fn tree_sum(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// Element `i` is added to lane `i % 16`.
pub fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    for (index, &value) in values.iter().enumerate() {
        lanes[index % LANES] += value;
    }
    tree_sum(lanes)
}

/// Largest distance from 0.
pub fn max_abs(values: Row<'_>) -> f32 {
    let mut largest = 0f32;
    for index in 0..values.len() {
        let value = values.get(index).abs();
        largest = if value > largest { value } else { largest };
    }
    largest
}

/// Largest value.
pub fn max(values: &[f32]) -> f32 {
    values.iter().fold(f32::NEG_INFINITY, |largest, &x| if x > largest { x } else { largest })
}

/// Two passes: means, then squared distances. Each channel is a chain over the cells of the row, and a group adds
/// its channels in order.
pub fn group_moments(row: &[f32], channels: usize, scratch: &mut [f32], out: &mut [Moments]) {
    let groups = out.len();
    assert!(row.len().is_multiple_of(channels), "the row is not whole cells");
    assert!(channels.is_multiple_of(groups), "groups do not divide {channels} channels");
    assert!(scratch.len() >= channels, "moments need a scratch of {channels} values");
    let (cells, size) = (row.len() / channels, channels / groups);
    for (group, out) in out.iter_mut().enumerate() {
        let range = group * size..(group + 1) * size;
        let count = cells * size;
        let mut total = 0f32;
        for channel in range.clone() {
            let mut sum = 0f32;
            for cell in 0..cells {
                sum += row[cell * channels + channel];
            }
            total += sum;
        }
        let mean = total / count as f32;
        let mut m2 = 0f32;
        for channel in range {
            let mut sum = 0f32;
            for cell in 0..cells {
                let distance = row[cell * channels + channel] - mean;
                sum = distance.mul_add(distance, sum);
            }
            m2 += sum;
        }
        *out = Moments { count: count as u32, mean, m2 };
    }
}
