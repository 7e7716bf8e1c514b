//! Where every byte of a pack goes: the writer's side of the specification.
//!
//! Enters: metadata and the tensors' names, types, shapes and hashes. Leaves: the header. Never: tensor data.

use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::meta::{Golden, Provenance, Report, TensorMeta};
use super::{PAD_PREFIX, PAGE_BYTES, TENSOR_ALIGN_BYTES, TensorType, VERSION};
use crate::graph::{Graph, Node, Op};
use crate::hash::hex;
use crate::pipeline::PipelineSpec;

/// What every header begins with; 64 digits follow.
pub(super) const PREFIX: &str = r#"{"__metadata__":{"plantain.header_sha256":""#;
/// Where in the file those digits stand.
pub(super) const HASH_AT: usize = 8 + PREFIX.len();

/// All that a pack holds beside tensors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// In the order in which a picture needs them.
    pub graphs: Vec<Graph>,
    /// Absent in a pack of a lone network.
    pub pipeline: Option<PipelineSpec>,
    /// Title, licence, sources.
    pub provenance: Provenance,
    /// Inputs and outputs of networks for self-tests.
    pub golden: Vec<Golden>,
    /// What the packer found out.
    pub report: Option<Report>,
}

/// A tensor, as the header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Unique in the pack.
    pub name: String,
    /// Stored type.
    pub dtype: TensorType,
    /// Outermost first; no dimension is zero.
    pub shape: Vec<usize>,
    /// Of the stored bytes, padding and all.
    pub sha256: [u8; 32],
}

impl TensorEntry {
    /// Bytes of its values.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bytes()
    }

    /// Bytes in the file.
    pub fn stored_bytes(&self) -> usize {
        self.bytes().next_multiple_of(TENSOR_ALIGN_BYTES)
    }

    /// The shape in the safetensors header.
    fn stored_shape(&self) -> Vec<usize> {
        if self.bytes() == self.stored_bytes() {
            self.shape.clone()
        } else {
            vec![self.stored_bytes() / self.dtype.bytes()]
        }
    }
}

/// Rules of the layout that writers share.
#[derive(Debug)]
pub struct Layout;

impl Layout {
    /// Zeros between `offset`, which counts from the start of the data, and the next page.
    pub const fn to_page(offset: usize) -> usize {
        offset.next_multiple_of(PAGE_BYTES) - offset
    }

    /// The tensor that fills `bytes` before the next one, where the `index`-th pad stands.
    pub fn pad(index: usize, bytes: usize) -> TensorEntry {
        TensorEntry {
            name: format!("{PAD_PREFIX}{index}"),
            dtype: TensorType::U8,
            shape: vec![bytes],
            sha256: Sha256::digest(vec![0; bytes]).into(),
        }
    }

    /// The first bytes of a pack, up to its data: the header's length, the header, spaces.
    ///
    /// `tensors` stand in the order of their data.
    pub fn header(metadata: &Metadata, tensors: &[TensorEntry]) -> Vec<u8> {
        let mut offset = 0;
        let mut object = Map::new();
        object.insert("__metadata__".to_owned(), Value::Object(strings(metadata, tensors)));
        for tensor in tensors {
            let end = offset + tensor.stored_bytes();
            let entry = json!({
                "dtype": tensor.dtype.name(),
                "shape": tensor.stored_shape(),
                "data_offsets": [offset, end],
            });
            object.insert(tensor.name.clone(), entry);
            offset = end;
        }
        let json = Value::Object(object).to_string();
        assert!(json.starts_with(PREFIX), "serde_json keeps the order of keys (preserve_order)");
        let mut bytes = vec![0; 8];
        bytes.extend_from_slice(json.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(PAGE_BYTES), b' ');
        let length = bytes.len() as u64 - 8;
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        Layout::seal(&mut bytes);
        bytes
    }

    /// Writes a header's hash into it; `header` runs from the file's first byte to its data.
    ///
    /// Leaves a header alone that does not begin as a pack's does.
    pub fn seal(header: &mut [u8]) {
        if let Some(hash) = hash(header) {
            header[HASH_AT..HASH_AT + 64].copy_from_slice(hex(&hash).as_bytes());
        }
    }
}

/// The hash of a header (from the file's first byte to its data) with the digits of its hash read as zeros.
/// `None` if it does not begin as a pack's does.
pub(super) fn hash(header: &[u8]) -> Option<[u8; 32]> {
    let begins = header.get(8..HASH_AT)? == PREFIX.as_bytes();
    let rest = header.get(HASH_AT + 64..)?;
    begins.then(|| {
        let hash = Sha256::new().chain_update(&header[..HASH_AT]).chain_update([b'0'; 64]);
        hash.chain_update(rest).finalize().into()
    })
}

/// The values of `__metadata__`.
fn strings(metadata: &Metadata, tensors: &[TensorEntry]) -> Map<String, Value> {
    let mut map = Map::new();
    let mut put = |key: &str, text: String| map.insert(key.to_owned(), Value::String(text));
    put("plantain.header_sha256", "0".repeat(64));
    put("plantain.version", version(&metadata.graphs).to_string());
    put("plantain.graphs", text(&metadata.graphs));
    if let Some(pipeline) = &metadata.pipeline {
        put("plantain.pipeline", text(pipeline));
    }
    put("plantain.provenance", text(&metadata.provenance));
    if !metadata.golden.is_empty() {
        put("plantain.golden", text(&metadata.golden));
    }
    if let Some(report) = &metadata.report {
        put("plantain.report", text(report));
    }
    let mut metas = Map::new();
    for tensor in tensors {
        let padded = tensor.bytes() != tensor.stored_bytes();
        let meta = TensorMeta {
            sha256: hex(&tensor.sha256),
            shape: padded.then(|| tensor.shape.iter().map(|&dim| dim as u64).collect()),
        };
        let meta = serde_json::to_value(meta).expect("plain data becomes JSON");
        metas.insert(tensor.name.clone(), meta);
    }
    put("plantain.tensors", Value::Object(metas).to_string());
    map
}

/// The oldest format version that has every op of some graphs.
fn version(graphs: &[Graph]) -> u32 {
    let newer = |node: &Node| matches!(node.op, Op::AttentionI8 { .. });
    if graphs.iter().flat_map(|graph| &graph.nodes).any(newer) { VERSION } else { 1 }
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data becomes JSON")
}
