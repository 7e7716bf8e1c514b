//! A pack in numbers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use plantain::graph::{DType, Graph, Node, Op, ValueId, Window, tensor_needs};
use plantain::pack::{
    GoldenBinding, PAD_PREFIX, Pack, PackError, Provenance, PruningReport, Report, TensorType,
};
use plantain::pipeline::PipelineSpec;
use serde::Serialize;

/// What a pack holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Where it was opened.
    pub path: PathBuf,
    /// Bytes of the file.
    pub bytes: u64,
    /// Version of its format.
    pub version: u32,
    /// The header's SHA-256, which names the pack.
    pub hash: String,
    /// The file's SHA-256; only where every byte was read.
    pub sha256: Option<String>,
    /// Every byte was read and has its hash.
    pub verified: bool,
    /// The file is signed by the key that was given.
    pub signature_verified: bool,
    /// Title, licence, sources.
    pub provenance: Provenance,
    /// In the order in which a picture needs them.
    pub networks: Vec<Network>,
    /// Absent in a pack of a lone network.
    pub pipeline: Option<PipelineSpec>,
    /// Tensors, pads not among them.
    pub tensors: usize,
    /// Bytes of the header.
    pub header_bytes: u64,
    /// Bytes of pads.
    pub pad_bytes: u64,
    /// What pruning took out and what it cost, by the packer's report; absent where nothing was pruned.
    pub pruning: Option<PruningReport>,
    /// Networks with a golden pair, and its size.
    pub golden: BTreeMap<String, GoldenBinding>,
}

/// One network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Fed from outside.
    pub inputs: Vec<Port>,
    /// Read from outside.
    pub outputs: Vec<Port>,
    /// Nodes by op.
    pub ops: BTreeMap<String, usize>,
    /// Weights of layers, without scales and padding.
    pub parameters: u64,
    /// Bytes of the tensors that it reads, padding and all.
    pub bytes: u64,
    /// Layers with weights by precision.
    pub precision: Vec<Precision>,
    /// Cosine similarity of its output to its float run, by the packer's report.
    pub cosine: Option<f32>,
    /// Layers with a weight, in execution order.
    pub layers: Vec<Layer>,
    /// In execution order.
    pub attentions: Vec<Attention>,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Outermost first; `b`, `h`, `w` stand for batch, height and width.
    pub shape: Vec<String>,
    /// `f32`, `f16`, `i32`.
    pub dtype: &'static str,
}

/// Layers that share a stored type.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Precision {
    /// `int8` or `f16`.
    pub name: &'static str,
    /// Layers.
    pub layers: usize,
    /// Their weights.
    pub parameters: u64,
}

/// A node with a weight matrix.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Layer {
    /// The node's name.
    pub name: String,
    /// The op's name.
    pub op: &'static str,
    /// Outputs first: `[n, k]`, `[n, rows, columns, c]`.
    pub shape: Vec<u64>,
    /// `int8` or `f16`.
    pub precision: &'static str,
    /// Weights.
    pub parameters: u64,
    /// Bytes of its tensors, padding and all.
    pub bytes: u64,
    /// Relative error against float, by the packer's report.
    pub error: Option<f32>,
    /// Why it stayed f16, by the packer's report.
    pub kept_f16: Option<String>,
}

/// A node that is an attention.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attention {
    /// The node's name.
    pub name: String,
    /// `int8` or `float`: its products.
    pub precision: &'static str,
    /// Heads.
    pub heads: u32,
    /// Relative error against float, by the packer's report; 0 where it stayed float though it has many keys.
    pub error: Option<f32>,
    /// Why it stayed float, by the packer's report.
    pub kept_float: Option<String>,
}

impl Inspection {
    /// Describes a pack from its header.
    ///
    /// # Errors
    /// [`PackError`] if the packer's report cannot be read.
    pub fn new(pack: &Pack) -> Result<Self, PackError> {
        let report = pack.report()?.unwrap_or_default();
        let pads = pack.tensors().filter(|tensor| tensor.name().starts_with(PAD_PREFIX));
        let (pads, pad_bytes) = pads.fold((0, 0), |(count, bytes), pad| {
            (count + 1, bytes + pad.bytes_padded().len() as u64)
        });
        let data_bytes: u64 =
            pack.tensors().map(|t| t.file_range().end - t.file_range().start).sum();
        Ok(Inspection {
            path: pack.path().to_owned(),
            bytes: pack.bytes(),
            version: pack.version(),
            hash: pack.hash(),
            sha256: None,
            verified: false,
            signature_verified: false,
            provenance: pack.provenance().clone(),
            networks: pack.graphs().iter().map(|graph| network(pack, graph, &report)).collect(),
            pipeline: pack.pipeline().ok().cloned(),
            tensors: pack.tensors().len() - pads,
            header_bytes: pack.bytes() - data_bytes,
            pad_bytes,
            pruning: report.pruning.clone(),
            golden: pack.golden().iter().map(|pair| (pair.network.clone(), pair.binding)).collect(),
        })
    }

    /// Reads every byte of the pack and compares it with its hash.
    ///
    /// # Errors
    /// [`PackError`] naming the first tensor that is damaged.
    pub fn verify(&mut self, pack: &Pack) -> Result<(), PackError> {
        pack.verify_all()?;
        self.sha256 = Some(pack.file_sha256()?);
        self.verified = true;
        Ok(())
    }
}

fn network(pack: &Pack, graph: &Graph, report: &Report) -> Network {
    let mut ops = BTreeMap::new();
    let mut names = std::collections::BTreeSet::new();
    let (mut layers, mut attentions) = (Vec::new(), Vec::new());
    for node in &graph.nodes {
        *ops.entry(node.op.name().to_owned()).or_default() += 1;
        let needs: Vec<&str> =
            tensor_needs(graph, node).unwrap_or_default().iter().map(|need| need.name).collect();
        let noted = report
            .layers
            .iter()
            .find(|layer| layer.network == graph.name && layer.node == node.name);
        let attention = match node.op {
            Op::Attention { heads, .. } => Some((heads, "float")),
            Op::AttentionI8 { heads, .. } => Some((heads, "int8")),
            _ => None,
        };
        if let Some((heads, precision)) = attention {
            attentions.push(Attention {
                name: node.name.clone(),
                precision,
                heads,
                error: noted.map(|noted| noted.error),
                kept_float: noted.and_then(|noted| noted.kept_f16.clone()),
            });
        }
        if let Some((shape, precision)) = weight(pack, graph, node) {
            layers.push(Layer {
                name: node.name.clone(),
                op: node.op.name(),
                parameters: shape.iter().product(),
                shape,
                precision,
                bytes: needs.iter().map(|name| stored_bytes(pack, name)).sum(),
                error: noted.map(|layer| layer.error),
                kept_f16: noted.and_then(|layer| layer.kept_f16.clone()),
            });
        }
        names.extend(needs);
    }
    let precision = ["int8", "f16"].map(|name| {
        let of: Vec<&Layer> = layers.iter().filter(|layer| layer.precision == name).collect();
        let parameters = of.iter().map(|layer| layer.parameters).sum();
        Precision { name, layers: of.len(), parameters }
    });
    Network {
        name: graph.name.clone(),
        inputs: graph.inputs.iter().map(|&id| port(graph, id)).collect(),
        outputs: graph.outputs.iter().map(|&id| port(graph, id)).collect(),
        ops,
        parameters: layers.iter().map(|layer| layer.parameters).sum(),
        bytes: names.iter().map(|name| stored_bytes(pack, name)).sum(),
        precision: precision.into_iter().filter(|precision| precision.layers > 0).collect(),
        cosine: report.networks.get(&graph.name).copied(),
        layers,
        attentions,
    }
}

fn stored_bytes(pack: &Pack, name: &str) -> u64 {
    pack.tensor(name).map_or(0, |tensor| tensor.bytes_padded().len() as u64)
}

fn port(graph: &Graph, id: ValueId) -> Port {
    let value = graph.value(id);
    let dtype = match value.dtype {
        DType::F32 => "f32",
        DType::F16 => "f16",
        DType::I32 => "i32",
    };
    let shape = value.shape.iter().map(ToString::to_string).collect();
    Port { name: value.name.clone(), shape, dtype }
}

/// The shape and precision of a node's weight matrix, if it has one.
fn weight(pack: &Pack, graph: &Graph, node: &Node) -> Option<(Vec<u64>, &'static str)> {
    let conv = |n: u32, window: &Window, c: u32| {
        [n, window.kernel[0], window.kernel[1], c].map(u64::from).to_vec()
    };
    Some(match &node.op {
        Op::MatmulI8 { k, n, .. } => (vec![u64::from(*n), u64::from(*k)], "int8"),
        Op::MatmulF16 { k, n, .. } => (vec![u64::from(*n), u64::from(*k)], "f16"),
        Op::ConvI8 { c, n, window, .. } => (conv(*n, window, *c), "int8"),
        Op::ConvF16 { c, n, window, .. } => (conv(*n, window, *c), "f16"),
        Op::Depthwise { window, .. } => {
            let c = graph.value(node.output).shape.last()?.as_fixed()?;
            (vec![u64::from(window.kernel[0]), u64::from(window.kernel[1]), c as u64], "f16")
        }
        Op::Gather { table, rows, .. } => {
            let c = graph.value(node.output).shape.last()?.as_fixed()?;
            let int8 = pack.tensor(table).ok()?.dtype() == TensorType::I8;
            (vec![u64::from(*rows), c as u64], if int8 { "int8" } else { "f16" })
        }
        _ => return None,
    })
}
