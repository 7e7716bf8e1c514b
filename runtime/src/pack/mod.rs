//! The pack: one safetensors file with everything that a picture needs.
//!
//! Enters: a path. Leaves: verified graphs, the pipeline and tensors that borrow the map. Never: copies of
//! weights, trust in the file, a change to the file.
//!
//! # Byte by byte
//!
//! | bytes | what |
//! |---|---|
//! | `0..8` | `n`, u64, little-endian: length of the header; at most [`HEADER_BYTES_MAX`] |
//! | `8..8+n` | the header: JSON, then spaces, so that `8 + n` is a multiple of 16 KiB ([`PAGE_BYTES`]) when plantain wrote it, of 64 always |
//! | `8+n..` | the data: tensors without a gap, in the order of their offsets, to the end of the file |
//!
//! The header begins with exactly `{"__metadata__":{"plantain.header_sha256":"`, then 64 hexadecimal digits:
//! the SHA-256 of bytes `0..8+n` with those digits read as `0`. As the header holds the hash of every tensor,
//! that one number names the whole pack ([`Pack::hash`]), and every flipped bit of the file is found: those of
//! the header when it is opened, those of a tensor when it is first used. This rule holds in every version.
//!
//! # Tensors
//!
//! Stored types are `I8` (-127 to 127), `U8`, `F16`, `F32` and `I32`, little-endian. Every tensor starts on a multiple of 64
//! bytes of the file and is a multiple of 64 bytes long. Where its values do not fill that, zeros follow them,
//! its stored shape has one dimension, and `plantain.tensors` holds the shape that is meant. Names that begin
//! with `plantain.pad.` are zeros that move the next tensor to a multiple of 16 KiB: a tensor that is
//! streamed then begins a page of its own. Weights lie in execution order, as panels ([`panel`]).
//!
//! # Key by key
//!
//! The values of `__metadata__` are strings; all but the first two hold JSON.
//!
//! | key | what |
//! |---|---|
//! | `plantain.header_sha256` | see above; always first |
//! | `plantain.version` | decimal; [`VERSION`] is the newest that this library reads |
//! | `plantain.graphs` | list of [`crate::graph::Graph`], in the order in which a picture needs them |
//! | `plantain.pipeline` | [`crate::pipeline::PipelineSpec`]; absent in a pack of a lone network |
//! | `plantain.provenance` | [`Provenance`]: title, licence, sources with their hashes |
//! | `plantain.golden` | list of [`Golden`]: inputs and outputs of each network for self-tests; may be absent |
//! | `plantain.report` | what the packer found out, [`Report`]; may be absent |
//! | `plantain.tensors` | object: tensor name to `{"sha256": .., "shape": [..]}`; the shape only where it differs from the stored one |
//!
//! Other keys are ignored; what a reader must not ignore gets a new version. Version 2 adds the op `attention_i8`; a pack without it is
//! still written as version 1.
//!
//! # Never edited in place
//!
//! A pack is mapped while it is used, so that changing the file would change memory under a running program.
//! Whoever installs a pack writes another file beside it and renames it over the old one: programs that run
//! keep the old file until they end. Only `map.rs` relies on this, and says so.

mod build;
mod check;
mod error;
mod file;
mod header;
mod layout;
mod map;
mod meta;
pub mod panel;
mod signature;
mod tensor;
#[cfg(test)]
mod tests;
mod verify;

pub use build::PackBuilder;
pub use error::{PackError, PackFault};
pub use file::Pack;
pub use layout::{Layout, Metadata, TensorEntry};
pub use meta::{
    Golden, GoldenBinding, LayerReport, Provenance, PrunedPart, PruningReport, Report, Source,
};
pub use signature::PublicKey;
pub use tensor::{Tensor, TensorType};

/// The newest format version that this library reads. It writes the oldest that has what a pack holds.
pub const VERSION: u32 = 2;
/// The longest header, in bytes.
pub const HEADER_BYTES_MAX: u64 = 16 << 20;
/// Tensors start on, and are, multiples of this many bytes.
pub const TENSOR_ALIGN_BYTES: usize = 64;
/// Streamed tensors and the data itself start on multiples of this many bytes: the largest page of a
/// supported board (Raspberry Pi 5).
pub const PAGE_BYTES: usize = 16 << 10;
/// Ranges on multiples of this many bytes can be read past the page cache: the largest block of a supported board's storage.
pub const READ_ALIGN_BYTES: usize = 4 << 10;
/// The most tensors of a pack.
pub const TENSORS_MAX: usize = 1 << 16;
/// The longest name of a tensor, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// The most dimensions of a tensor.
pub const RANK_MAX: usize = 8;
/// What the names of tensors begin with that only move the next one.
pub const PAD_PREFIX: &str = "plantain.pad.";
