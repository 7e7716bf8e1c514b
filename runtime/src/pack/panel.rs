//! Panels: weight matrices in the one layout that every kernel reads straight from the map.
//!
//! int8, `[ceil(n/16)][k_groups][16][4]`: a panel holds 16 outputs; within it, groups of four
//! consecutive k lie together for each output, so that one 64-byte line is one VNNI-512 register, two AVX2
//! registers or four NEON registers. k runs over kernel row, kernel column and channel, with the channels
//! of each tap padded with zeros to a multiple of 4; for a matmul there is one tap. f16,
//! `[ceil(n/16)][k][16]`, with k not padded. Outputs are padded with zeros to a multiple of 16.

use half::f16;

/// Outputs of one panel.
pub const PANEL_OUTPUTS: usize = 16;
/// Consecutive k of one output that lie together in an int8 panel.
pub const PANEL_GROUP: usize = 4;

/// Sizes of an int8 weight matrix in panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanelShape {
    /// Outputs, not padded.
    pub outputs: usize,
    /// Kernel rows; 1 for a matmul.
    pub kernel_rows: usize,
    /// Kernel columns; 1 for a matmul.
    pub kernel_columns: usize,
    /// Channels (k of a matmul), not padded.
    pub channels: usize,
}

impl PanelShape {
    /// A matmul's `[n, k]`.
    pub const fn matmul(n: usize, k: usize) -> Self {
        PanelShape { outputs: n, kernel_rows: 1, kernel_columns: 1, channels: k }
    }

    /// Panels.
    pub const fn panels(&self) -> usize {
        self.outputs.div_ceil(PANEL_OUTPUTS)
    }

    /// Channels, padded.
    pub const fn channels_padded(&self) -> usize {
        self.channels.div_ceil(PANEL_GROUP) * PANEL_GROUP
    }

    /// Groups of four k in one kernel row.
    pub const fn groups_per_row(&self) -> usize {
        self.kernel_columns * self.channels_padded() / PANEL_GROUP
    }

    /// Groups of four k in one panel.
    pub const fn groups(&self) -> usize {
        self.kernel_rows * self.groups_per_row()
    }

    /// Bytes of all panels.
    pub const fn bytes(&self) -> usize {
        self.panels() * self.groups() * PANEL_OUTPUTS * PANEL_GROUP
    }

    /// Where a weight lies.
    pub const fn index(&self, output: usize, row: usize, column: usize, channel: usize) -> usize {
        let k = (row * self.kernel_columns + column) * self.channels_padded() + channel;
        let (panel, lane) = (output / PANEL_OUTPUTS, output % PANEL_OUTPUTS);
        let (group, rest) = (k / PANEL_GROUP, k % PANEL_GROUP);
        ((panel * self.groups() + group) * PANEL_OUTPUTS + lane) * PANEL_GROUP + rest
    }

    /// Lays int8 weights `[outputs, kernel_rows, kernel_columns, channels]` (row-major) out as panels.
    ///
    /// # Panics
    /// If `weights` has another length.
    pub fn pack_i8(&self, weights: &[i8]) -> Vec<i8> {
        let taps = self.kernel_rows * self.kernel_columns;
        assert_eq!(
            weights.len(),
            self.outputs * taps * self.channels,
            "weights do not fill {self:?}"
        );
        let mut panels = vec![0; self.bytes()];
        for (index, &weight) in weights.iter().enumerate() {
            let (tap, channel) = (index / self.channels % taps, index % self.channels);
            let output = index / (self.channels * taps);
            panels[self.index(
                output,
                tap / self.kernel_columns,
                tap % self.kernel_columns,
                channel,
            )] = weight;
        }
        panels
    }

    /// Sums of the weights of each output by kernel row: `[kernel_rows, panels * 16]`.
    ///
    /// Kernels that read activations as unsigned bytes subtract `128 *` these.
    pub fn sums(&self, panels: &[i8]) -> Vec<i32> {
        let padded = self.panels() * PANEL_OUTPUTS;
        let mut sums = vec![0; self.kernel_rows * padded];
        let line = PANEL_OUTPUTS * PANEL_GROUP;
        for (index, group) in panels.chunks_exact(line).enumerate() {
            let (panel, row) =
                (index / self.groups(), index % self.groups() / self.groups_per_row());
            for (lane, weights) in group.chunks_exact(PANEL_GROUP).enumerate() {
                sums[row * padded + panel * PANEL_OUTPUTS + lane] +=
                    weights.iter().map(|&w| i32::from(w)).sum::<i32>();
            }
        }
        sums
    }
}

/// Lays f16 weights `[outputs, k]` (row-major) out as panels `[ceil(outputs/16)][k][16]`.
///
/// # Panics
/// If `weights` is not `outputs * k` long.
pub fn pack_f16(outputs: usize, k: usize, weights: &[f16]) -> Vec<f16> {
    assert_eq!(weights.len(), outputs * k, "weights do not fill [{outputs}, {k}]");
    let mut panels = vec![f16::ZERO; outputs.div_ceil(PANEL_OUTPUTS) * k * PANEL_OUTPUTS];
    for (index, &weight) in weights.iter().enumerate() {
        let (output, k_index) = (index / k, index % k);
        panels[(output / PANEL_OUTPUTS * k + k_index) * PANEL_OUTPUTS + output % PANEL_OUTPUTS] =
            weight;
    }
    panels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_has_its_own_place_and_padding_is_zero() {
        let shape = PanelShape { outputs: 18, kernel_rows: 3, kernel_columns: 2, channels: 5 };
        let weights: Vec<i8> = (0..18 * 6 * 5).map(|i| (i % 127 + 1) as i8).collect();
        let panels = shape.pack_i8(&weights);
        assert_eq!(panels.len(), 2 * (3 * 2 * 8 / 4) * 64);
        assert_eq!(panels.iter().filter(|&&w| w != 0).count(), weights.len());
        assert_eq!(panels[shape.index(17, 2, 1, 4)], weights[((17 * 3 + 2) * 2 + 1) * 5 + 4]);
        let sums = shape.sums(&panels);
        let expected: i32 =
            weights[(17 * 3 + 1) * 10..(17 * 3 + 2) * 10].iter().map(|&w| i32::from(w)).sum();
        assert_eq!(sums[32 + 17], expected);
        assert_eq!(sums[32 + 18], 0);
    }
}
