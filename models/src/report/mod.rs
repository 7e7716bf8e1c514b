//! What quantising cost, for people and for programs.
//!
//! Enters: sums of errors. Leaves: rows, text, JSON. Never: a decision.

mod metrics;
mod text;

use plantain::graph::Binding;
use plantain::pack::GoldenBinding;
use serde::Serialize;

pub use metrics::{ErrorSums, median, psnr_db};

/// One comparison with the float run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Error {
    /// Signal over noise; `null` in JSON where nothing differs.
    #[serde(serialize_with = "finite")]
    pub snr_db: f64,
    /// Cosine of the angle between both.
    pub cosine: f64,
    /// Root of the mean squared error over the root of the mean square.
    pub relative: f64,
    /// Largest absolute difference.
    #[serde(serialize_with = "finite")]
    pub max: f64,
}

impl From<ErrorSums> for Error {
    fn from(sums: ErrorSums) -> Self {
        Error {
            snr_db: sums.snr_db(),
            cosine: sums.cosine(),
            relative: sums.relative(),
            max: sums.max(),
        }
    }
}

/// One layer with weights.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerRow {
    /// Node.
    pub node: String,
    /// `matmul` or `convolution`.
    pub kind: &'static str,
    /// Number of weights.
    pub weights: usize,
    /// How it runs.
    pub precision: &'static str,
    /// Its error on float inputs, its residual apart, in int8 (even if it stays f16).
    pub alone: Error,
    /// Error of its output inside the quantised network.
    pub inside: Error,
    /// Signal to noise of int8 with one scale a row.
    #[serde(serialize_with = "finite")]
    pub row_snr_db: f64,
    /// Signal to noise of int8 with one calibrated scale, on samples that did not find it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub static_snr_db: Option<f64>,
    /// Why it stays f16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_f16: Option<String>,
}

/// One attention over many keys; those over few stay float and are not listed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttentionRow {
    /// Node.
    pub node: String,
    /// Keys of one sample.
    pub keys: usize,
    /// How its products run: `int8` or `float`.
    pub precision: &'static str,
    /// Its error on float inputs, in int8 (even if it stays float).
    pub alone: Error,
    /// Error of its output inside the quantised network.
    pub inside: Error,
    /// Why it stays float.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_float: Option<String>,
}

/// One network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkReport {
    /// Its name.
    pub network: String,
    /// Calibration samples that were run.
    pub samples: usize,
    /// Their sizes.
    pub binding: GoldenBinding,
    /// Error of its outputs.
    pub outputs: Error,
    /// How good they should be; layers stay f16 for it as far as their share allows.
    pub snr_db_min: f64,
    /// Producers whose channels were brought closer together.
    pub equalised: Vec<String>,
    /// Embedding tables in int8.
    pub int8_tables: usize,
    /// Bytes of its tensors, without padding.
    pub tensor_bytes: usize,
    /// In execution order.
    pub layers: Vec<LayerRow>,
    /// In execution order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attentions: Vec<AttentionRow>,
}

/// What packing found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PackingReport {
    /// Bytes of the pack.
    pub pack_bytes: u64,
    /// In the order in which a picture needs them.
    pub networks: Vec<NetworkReport>,
    /// What pruning took out and what it cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pruning: Option<plantain::pack::PruningReport>,
}

impl PackingReport {
    /// What goes into the pack itself.
    pub fn summary(&self) -> plantain::pack::Report {
        let layers = self.networks.iter().flat_map(|network| {
            network.layers.iter().map(|layer| plantain::pack::LayerReport {
                network: network.network.clone(),
                node: layer.node.clone(),
                error: if layer.kept_f16.is_some() { 0.0 } else { layer.alone.relative as f32 },
                kept_f16: layer.kept_f16.clone(),
            })
        });
        let attentions = self.networks.iter().flat_map(|network| {
            network.attentions.iter().map(|attention| plantain::pack::LayerReport {
                network: network.network.clone(),
                node: attention.node.clone(),
                error: if attention.kept_float.is_some() {
                    0.0
                } else {
                    attention.alone.relative as f32
                },
                kept_f16: attention.kept_float.clone(),
            })
        });
        plantain::pack::Report {
            layers: layers.chain(attentions).collect(),
            networks: self
                .networks
                .iter()
                .map(|network| (network.network.clone(), network.outputs.cosine as f32))
                .collect(),
            pruning: self.pruning.clone(),
        }
    }
}

/// JSON has no infinity.
pub(crate) fn finite<S: serde::Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() { serializer.serialize_f64(*value) } else { serializer.serialize_none() }
}

/// A [`Binding`] as text.
pub fn sizes(binding: Binding) -> String {
    format!("batch {}, {} x {} cells", binding.batch, binding.width, binding.height)
}
