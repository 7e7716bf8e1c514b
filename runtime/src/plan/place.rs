//! Offsets: greedy best fit by size.
//!
//! Source: the greedy-by-size planner of Pisarchyk and Lee 2020 (arXiv 2001.03288), as TensorFlow Lite
//! Micro uses it. Buffers are placed from the largest on, each in the tightest gap between the buffers that
//! live at the same time.

use crate::arena::align_up;

use super::Buffer;

/// Gives every buffer that is not kept an offset and returns the bytes of the arena.
pub fn place(buffers: &mut [Buffer]) -> usize {
    let mut order: Vec<usize> = (0..buffers.len()).filter(|&index| !buffers[index].kept).collect();
    order.sort_by_key(|&index| {
        let buffer = &buffers[index];
        let life = buffer.last_step - buffer.first_step;
        (std::cmp::Reverse(buffer.bytes), std::cmp::Reverse(life), index)
    });
    let mut placed: Vec<usize> = Vec::with_capacity(buffers.len());
    let mut total = 0;
    for index in order {
        let bytes = align_up(buffers[index].bytes);
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .map(|&other| &buffers[other])
            .filter(|other| other.lives_with(&buffers[index]))
            .map(|other| (other.offset, other.offset + align_up(other.bytes)))
            .collect();
        taken.sort_unstable();
        let offset = best_gap(&taken, bytes);
        buffers[index].offset = offset;
        total = total.max(offset + bytes);
        placed.push(index);
    }
    total
}

/// Gives buffers that keep their values an offset from `start` on, one behind the other, and returns their bytes.
pub fn place_kept(buffers: &mut [Buffer], start: usize) -> usize {
    let mut end = start;
    for buffer in buffers.iter_mut().filter(|buffer| buffer.kept) {
        buffer.offset = end;
        end += align_up(buffer.bytes);
    }
    end - start
}

/// The start of the smallest gap between `taken` (sorted) that holds `bytes`, or their end.
fn best_gap(taken: &[(usize, usize)], bytes: usize) -> usize {
    let mut best: Option<(usize, usize)> = None;
    let mut end = 0;
    for &(start, stop) in taken {
        if start >= end + bytes && best.is_none_or(|(gap, _)| start - end < gap) {
            best = Some((start - end, end));
        }
        end = end.max(stop);
    }
    best.map_or(end, |(_, offset)| offset)
}

/// The largest sum of bytes that live at one time, what is kept aside: no placement can need less.
pub fn live_bytes_max(buffers: &[Buffer]) -> usize {
    buffers
        .iter()
        .map(|at| {
            let time = at.first_step;
            buffers
                .iter()
                .filter(|buffer| {
                    !buffer.kept && (buffer.first_step..=buffer.last_step).contains(&time)
                })
                .map(|buffer| align_up(buffer.bytes))
                .sum()
        })
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Owner, check};
    use proptest::prelude::*;

    fn buffer(bytes: usize, first_step: usize, last_step: usize) -> Buffer {
        Buffer { owner: Owner::Slot(0), bytes, offset: 0, first_step, last_step, kept: false }
    }

    #[test]
    fn a_chain_alternates_between_two_places() {
        let mut buffers: Vec<Buffer> = (0..6).map(|i| buffer(1000, i, i + 1)).collect();
        assert_eq!(place(&mut buffers), 2 * 1024);
    }

    #[test]
    fn the_tightest_gap_is_taken() {
        assert_eq!(best_gap(&[(0, 64), (192, 256), (320, 384)], 64), 256);
        assert_eq!(best_gap(&[(0, 64), (192, 256), (320, 384)], 128), 64);
        assert_eq!(best_gap(&[(0, 64), (192, 256), (320, 384)], 192), 384);
    }

    proptest! {
        #[test]
        fn buffers_that_live_together_never_overlap(
            lives in prop::collection::vec((1usize..5000, 0usize..40, 0usize..12), 1..60)
        ) {
            let mut buffers: Vec<Buffer> =
                lives.iter().map(|&(bytes, first, life)| buffer(bytes, first, first + life)).collect();
            let total = place(&mut buffers);
            prop_assert!(check::disjoint(&buffers, total).is_ok());
            let floor = live_bytes_max(&buffers);
            prop_assert!(total >= floor);
            prop_assert!(total <= buffers.iter().map(|buffer| align_up(buffer.bytes)).sum());
        }
    }
}
