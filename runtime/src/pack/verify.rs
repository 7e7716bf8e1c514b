//! A file's bytes, taken as untrusted, become what a pack holds.
//!
//! Enters: the bytes of the whole file, of which only the header is touched. Leaves: [`Contents`], whose
//! ranges lie in the file and whose graphs keep the rules. Never: tensor data (its hashes are compared when
//! it is first used).

use std::sync::atomic::AtomicBool;

use super::check;
use super::header::{Entry, Header};
use super::layout::{HASH_AT, PREFIX, hash};
use super::meta::{Golden, Provenance, TensorMetas, unhex};
use super::tensor::{TensorInfo, TensorType};
use super::{HEADER_BYTES_MAX, NAME_BYTES_MAX, PackFault, RANK_MAX, TENSOR_ALIGN_BYTES, VERSION};
use crate::graph::{self, Graph, TensorFacts};
use crate::hash::hex;
use crate::pipeline::PipelineSpec;

/// What a verified pack holds.
#[derive(Debug)]
pub(super) struct Contents {
    /// Of the format.
    pub version: u32,
    pub graphs: Vec<Graph>,
    pub pipeline: Option<PipelineSpec>,
    pub provenance: Provenance,
    pub golden: Vec<Golden>,
    /// In the order of the file.
    pub tensors: Vec<TensorInfo>,
    /// Indices of `tensors`, sorted by name.
    pub by_name: Vec<u32>,
    /// Of the header.
    pub hash: [u8; 32],
    /// Bytes of the file before its data.
    pub header_bytes: usize,
}

impl Contents {
    /// The network of this name.
    pub fn graph(&self, name: &str) -> Option<&Graph> {
        self.graphs.iter().find(|graph| graph.name == name)
    }

    /// The index of a tensor.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name
            .binary_search_by(|&index| (*self.tensors[index as usize].name).cmp(name))
            .ok()
            .map(|at| self.by_name[at] as usize)
    }
}

/// Reads and checks a pack's header.
pub(super) fn read(file: &[u8]) -> Result<Contents, PackFault> {
    let (header, hash) = sealed(file)?;
    let found =
        header.metadata.get("plantain.version").ok_or(PackFault::NoKey("plantain.version"))?;
    let known = |version: &u32| (1..=VERSION).contains(version);
    let Some(version) = found.parse::<u32>().ok().filter(known) else {
        return Err(PackFault::NewerVersion { found: found.chars().take(20).collect() });
    };
    let header_bytes = header_bytes(file);
    let tensors = tensors(&header, file.len(), header_bytes)?;
    let mut by_name: Vec<u32> = (0..tensors.len() as u32).collect();
    by_name.sort_by(|&a, &b| tensors[a as usize].name.cmp(&tensors[b as usize].name));
    let contents = Contents {
        version,
        graphs: json(&header, "plantain.graphs")?.ok_or(PackFault::NoKey("plantain.graphs"))?,
        pipeline: json(&header, "plantain.pipeline")?,
        provenance: json(&header, "plantain.provenance")?
            .ok_or(PackFault::NoKey("plantain.provenance"))?,
        golden: json(&header, "plantain.golden")?.unwrap_or_default(),
        tensors,
        by_name,
        hash,
        header_bytes,
    };
    check_networks(&contents)?;
    check::golden(&contents)?;
    if let Some(pipeline) = &contents.pipeline {
        check::names(&contents, pipeline)?;
        check::sizes(&contents, pipeline)?;
    }
    Ok(contents)
}

/// One key's JSON of a header that [`read`] accepted.
pub(super) fn reread<T: serde::de::DeserializeOwned>(
    file: &[u8],
    key: &'static str,
) -> Result<Option<T>, PackFault> {
    json(&sealed(file)?.0, key)
}

/// At most 200 characters of a text that may hold anything.
pub(super) fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Bytes before the data, as a file's first ones say: to be believed once [`read`] accepted it.
pub(super) fn header_bytes(file: &[u8]) -> usize {
    let length = file.first_chunk().map_or(0, |&bytes| u64::from_le_bytes(bytes));
    length.saturating_add(8) as usize
}

/// The header, if its length and hash are right.
fn sealed(file: &[u8]) -> Result<(Header, [u8; 32]), PackFault> {
    let actual = file.len() as u64;
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(PackFault::NotSafetensors(format!("it has {actual} bytes")));
    };
    let length = u64::from_le_bytes(*length);
    let ours = rest.starts_with(PREFIX.as_bytes());
    if length > HEADER_BYTES_MAX {
        return Err(if rest.starts_with(b"{") {
            PackFault::HeaderTooLong { bytes: length }
        } else {
            PackFault::NotSafetensors("it does not begin with a header".to_owned())
        });
    }
    let expected = 8 + length;
    if expected > actual {
        return Err(if ours {
            PackFault::Truncated { expected, actual }
        } else {
            let reason = format!("it states a header of {length} bytes but has {actual} in all");
            PackFault::NotSafetensors(reason)
        });
    }
    let bytes = &file[..expected as usize];
    let parse = || serde_json::from_slice::<Header>(&bytes[8..]);
    if !ours {
        return Err(match parse() {
            Err(error) => PackFault::NotSafetensors(format!(
                "its header is no such JSON: {}",
                short(&error.to_string())
            )),
            Ok(header) if header.metadata.contains_key("plantain.version") => PackFault::Rewritten,
            Ok(_) => PackFault::NotAPack,
        });
    }
    let stated = bytes.get(HASH_AT..HASH_AT + 64).unwrap_or_default();
    let hash = hash(bytes).ok_or(PackFault::NoKey("plantain.header_sha256"))?;
    if hex(&hash).as_bytes() != stated {
        return Err(PackFault::HeaderDamaged {
            expected: String::from_utf8_lossy(&stated[..8]).into_owned(),
            actual: hex(&hash)[..8].to_owned(),
        });
    }
    let header = parse().map_err(|error| PackFault::Header(short(&error.to_string())))?;
    Ok((header, hash))
}

fn json<T: serde::de::DeserializeOwned>(
    header: &Header,
    key: &'static str,
) -> Result<Option<T>, PackFault> {
    let Some(text) = header.metadata.get(key) else { return Ok(None) };
    let fault =
        |error: serde_json::Error| PackFault::Json { key, error: short(&error.to_string()) };
    serde_json::from_str(text).map(Some).map_err(fault)
}

/// Every tensor's place, type, shape and hash.
fn tensors(
    header: &Header,
    file_bytes: usize,
    data_start: usize,
) -> Result<Vec<TensorInfo>, PackFault> {
    let metas: TensorMetas =
        json(header, "plantain.tensors")?.ok_or(PackFault::NoKey("plantain.tensors"))?;
    let mut metas = metas.0;
    let data_bytes = (file_bytes - data_start) as u64;
    let mut infos = Vec::with_capacity(header.tensors.len());
    let mut before = ("", 0);
    for (name, entry) in &header.tensors {
        let [begin, end] = entry.data_offsets;
        let (dtype, range_bytes) = check_entry(name, entry)?;
        match begin.cmp(&before.1) {
            std::cmp::Ordering::Less => {
                let (tensor, before) = (name.clone(), (before.0.to_owned(), before.1));
                return Err(PackFault::Overlap { tensor, begin, before: before.0, end: before.1 });
            }
            std::cmp::Ordering::Greater => {
                return Err(PackFault::Hole { tensor: name.clone(), begin, end: before.1 });
            }
            std::cmp::Ordering::Equal => {}
        }
        before = (name, end);
        if end > data_bytes {
            // Later tensors may ask for still more; the last one's end is the file's.
            let last = header.tensors.iter().map(|(_, e)| e.data_offsets[1]).max().unwrap_or(end);
            let expected = (data_start as u64).saturating_add(last);
            return Err(PackFault::Truncated { expected, actual: file_bytes as u64 });
        }
        let stored = data_start + begin as usize..data_start + end as usize;
        if stored.start % TENSOR_ALIGN_BYTES != 0
            || stored.end % TENSOR_ALIGN_BYTES != 0
            || stored.is_empty()
        {
            let (begin, end) = (stored.start as u64, stored.end as u64);
            return Err(PackFault::Unaligned { tensor: name.clone(), begin, end });
        }
        let meta = metas.remove(name).ok_or_else(|| PackFault::Unlisted(name.clone()))?;
        let sha256 = unhex(&meta.sha256).ok_or_else(|| PackFault::HashForm(name.clone()))?;
        let shape = meta.shape.as_deref().unwrap_or(&entry.shape);
        check_rank(name, shape)?;
        let bytes = shape_bytes(shape, dtype);
        let padded = bytes.checked_next_multiple_of(TENSOR_ALIGN_BYTES as u64);
        if bytes == 0 || padded != Some(range_bytes) {
            let tensor = name.clone();
            return Err(PackFault::Size { tensor, shape_bytes: bytes, range_bytes });
        }
        infos.push(TensorInfo {
            name: name.as_str().into(),
            dtype,
            shape: shape.iter().map(|&dim| dim as usize).collect(),
            stored,
            bytes: bytes as usize,
            sha256,
            verified: AtomicBool::new(false),
        });
    }
    if let Some(name) = metas.into_keys().next() {
        return Err(PackFault::Unlisted(short(&name)));
    }
    if before.1 != data_bytes {
        let expected = data_start as u64 + before.1;
        return Err(PackFault::Trailing { expected, actual: file_bytes as u64 });
    }
    Ok(infos)
}

/// The type of a header's entry and the length of its range, if its shape fills that.
fn check_entry(name: &str, entry: &Entry) -> Result<(TensorType, u64), PackFault> {
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) {
        return Err(PackFault::NameLength(name.len()));
    }
    let dtype = TensorType::from_name(&entry.dtype).ok_or_else(|| PackFault::Type {
        tensor: name.to_owned(),
        found: entry.dtype.chars().take(20).collect(),
    })?;
    check_rank(name, &entry.shape)?;
    let [begin, end] = entry.data_offsets;
    let range_bytes = end.checked_sub(begin).ok_or_else(|| PackFault::Backwards {
        tensor: name.to_owned(),
        begin,
        end,
    })?;
    let shape_bytes = shape_bytes(&entry.shape, dtype);
    if shape_bytes != range_bytes {
        return Err(PackFault::Size { tensor: name.to_owned(), shape_bytes, range_bytes });
    }
    Ok((dtype, range_bytes))
}

fn check_rank(name: &str, shape: &[u64]) -> Result<(), PackFault> {
    if shape.len() > RANK_MAX {
        return Err(PackFault::Rank { tensor: name.to_owned(), rank: shape.len() });
    }
    Ok(())
}

/// Bytes of a shape; `u64::MAX` if they are more.
fn shape_bytes(shape: &[u64], dtype: TensorType) -> u64 {
    shape
        .iter()
        .try_fold(dtype.bytes() as u64, |bytes, &dim| bytes.checked_mul(dim))
        .unwrap_or(u64::MAX)
}

fn check_networks(contents: &Contents) -> Result<(), PackFault> {
    for (index, graph) in contents.graphs.iter().enumerate() {
        graph::validate(graph, &|name| {
            let info = &contents.tensors[contents.find(name)?];
            Some(TensorFacts { dtype: info.dtype, elements: info.bytes / info.dtype.bytes() })
        })?;
        if contents.graphs[..index].iter().any(|before| before.name == graph.name) {
            return Err(PackFault::NetworkTwice(graph.name.clone()));
        }
    }
    Ok(())
}
