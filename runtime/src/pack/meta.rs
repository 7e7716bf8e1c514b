//! What a pack says about itself, beside graphs and pipeline.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::header::unique_map;
use crate::graph::Binding;

/// Where a pack comes from: the JSON under `plantain.provenance`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// What people call the model.
    pub title: String,
    /// SPDX expression, or the licence's own name.
    pub licence: String,
    /// Who made the model and from what, in a sentence or a few.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// Program and version that wrote the pack.
    pub packer: String,
    /// Files that it was made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
}

/// A file that a pack was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Relative to the folder that was packed.
    pub path: String,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// A golden input and output of one network: the JSON list under `plantain.golden`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// A graph's name.
    pub network: String,
    /// The sizes that it ran at.
    pub binding: GoldenBinding,
    /// The graph's input, then the tensor that holds it.
    pub inputs: BTreeMap<String, String>,
    /// The graph's output, then the tensor that holds it.
    pub outputs: BTreeMap<String, String>,
}

/// A [`Binding`] as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenBinding {
    /// See [`Binding`].
    pub batch: u32,
    /// See [`Binding`].
    pub height: u32,
    /// See [`Binding`].
    pub width: u32,
}

impl From<GoldenBinding> for Binding {
    fn from(GoldenBinding { batch, height, width }: GoldenBinding) -> Self {
        Binding { batch, height, width }
    }
}

impl From<Binding> for GoldenBinding {
    fn from(Binding { batch, height, width }: Binding) -> Self {
        GoldenBinding { batch, height, width }
    }
}

/// What the packer found out about its own work: the JSON under `plantain.report`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Layers with a weight, in execution order.
    #[serde(default)]
    pub layers: Vec<LayerReport>,
    /// Cosine similarity of each network's output to its float run.
    #[serde(default)]
    pub networks: BTreeMap<String, f32>,
    /// What pruning took out and what it cost; absent where nothing was pruned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruning: Option<PruningReport>,
}

/// A pruned model beside the same model unpruned, each quantised and run by the engine on one thread of the packer's machine, in
/// turns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PruningReport {
    /// Multiply-adds of one picture, or of one run of a lone network: unpruned, pruned.
    pub macs: [u64; 2],
    /// Bytes of the networks' tensors, without padding: unpruned, pruned.
    pub bytes: [u64; 2],
    /// Processor seconds of one picture, or of one run, at the median: unpruned, pruned.
    pub seconds: [f32; 2],
    /// Pictures, or runs, that were compared; none was learned from.
    pub pictures: u32,
    /// Median of their peak signal to noise ratios, pruned against unpruned; of a lone network: of its outputs' signal to
    /// noise ratios.
    pub db_median: f32,
    /// The least of them.
    pub db_min: f32,
    /// Groups that lost something, in execution order.
    #[serde(default)]
    pub parts: Vec<PrunedPart>,
}

/// Channels, or heads, that the same products make and read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedPart {
    /// A graph's name.
    pub network: String,
    /// The node that reads them.
    pub node: String,
    /// How many are left.
    pub kept: u32,
    /// How many there were.
    pub of: u32,
}

impl std::fmt::Display for PruningReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ([macs, macs_left], [bytes, bytes_left], [slow, fast]) =
            (self.macs, self.bytes, self.seconds);
        write!(
            f,
            "{:.0} of {:.0} M multiply-adds, {bytes_left} of {bytes} bytes of weights, {:.2} of {:.2} ms ({:.2} times as fast); \
             {:.1} dB from the unpruned at the median of {}, {:.1} dB at worst",
            macs_left as f64 / 1e6,
            macs as f64 / 1e6,
            fast * 1e3,
            slow * 1e3,
            slow / fast.max(f32::MIN_POSITIVE),
            self.db_median,
            self.pictures,
            self.db_min,
        )
    }
}

/// One layer's error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// A graph's name.
    pub network: String,
    /// A node's name.
    pub node: String,
    /// Root of the mean squared error over the root of the mean square, against float.
    pub error: f32,
    /// Why it stayed f16, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_f16: Option<String>,
}

/// One tensor under `plantain.tensors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TensorMeta {
    /// Of the stored bytes, padding and all.
    pub sha256: String,
    /// The shape that is meant, where zeros were added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u64>>,
}

/// The object under `plantain.tensors`.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct TensorMetas(
    #[serde(deserialize_with = "unique_map")] pub BTreeMap<String, TensorMeta>,
);

/// The inverse of [`hex`](crate::hash::hex) for 32 bytes.
pub(super) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if digits.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(hash)
}
