//! Why a pack is refused: one sentence each.

use std::path::{Path, PathBuf};

use super::{HEADER_BYTES_MAX, NAME_BYTES_MAX, RANK_MAX, TENSORS_MAX, VERSION};
use crate::graph::GraphError;

/// A pack that cannot be used, with its path.
#[derive(Debug, thiserror::Error)]
#[error("pack {}: {fault}", path.display())]
pub struct PackError {
    /// The file; `<memory>` for a pack that was never one.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: Box<PackFault>,
}

impl PackError {
    pub(super) fn new(path: &Path, fault: PackFault) -> Self {
        PackError { path: path.to_owned(), fault: Box::new(fault) }
    }
}

/// What is wrong with a pack.
#[derive(Debug, thiserror::Error)]
pub enum PackFault {
    /// No such file.
    #[error("there is no such file; name another with --pack")]
    Missing,
    /// A folder, a device, a pipe.
    #[error("this is not a regular file; name the .safetensors file itself")]
    NotAFile,
    /// The system refused.
    #[error("cannot read it: {0}")]
    Io(#[from] std::io::Error),
    /// Not safetensors at all.
    #[error("not a safetensors file ({0}); make a pack with plantain-pack")]
    NotSafetensors(String),
    /// Somebody else's safetensors.
    #[error(
        "a safetensors file, but not a pack (its metadata has no plantain.version); make one with plantain-pack"
    )]
    NotAPack,
    /// The header is not as plantain writes it.
    #[error(
        "another program rewrote this pack, so that its hashes no longer hold; get it again or pack it again"
    )]
    Rewritten,
    /// A header above the limit.
    #[error(
        "the header is {bytes} bytes long but at most {HEADER_BYTES_MAX} are read; the file is damaged or not a pack"
    )]
    HeaderTooLong {
        /// As the file states it.
        bytes: u64,
    },
    /// The file ends early.
    #[error("the file has {actual} bytes but needs {expected}; it was cut short, get it again")]
    Truncated {
        /// Bytes that the header asks for.
        expected: u64,
        /// Bytes of the file.
        actual: u64,
    },
    /// The file ends late.
    #[error("the file has {actual} bytes but its tensors end at {expected}; get it again")]
    Trailing {
        /// Bytes that the header accounts for.
        expected: u64,
        /// Bytes of the file.
        actual: u64,
    },
    /// The header's hash differs.
    #[error(
        "the header is damaged: its SHA-256 begins {actual} but should begin {expected}; get the file again"
    )]
    HeaderDamaged {
        /// First eight digits, as stated.
        expected: String,
        /// First eight digits, as computed.
        actual: String,
    },
    /// Made by a newer plantain.
    #[error(
        "the pack has format version {found} but this plantain reads up to {VERSION}; update plantain or pack it again"
    )]
    NewerVersion {
        /// As the pack states it.
        found: String,
    },
    /// The header's JSON.
    #[error("the header cannot be read: {0}")]
    Header(String),
    /// A key that must be there.
    #[error("the metadata has no {0}; pack it again")]
    NoKey(&'static str),
    /// JSON of one key.
    #[error("the metadata's {key} cannot be read: {error}")]
    Json {
        /// The key.
        key: &'static str,
        /// Where and why.
        error: String,
    },
    /// Too many tensors.
    #[error(
        "the pack has more than {TENSORS_MAX} tensors; this is not a pack that plantain can use"
    )]
    TooManyTensors,
    /// A tensor's name.
    #[error("a tensor's name has {0} bytes but 1 to {NAME_BYTES_MAX} are allowed")]
    NameLength(usize),
    /// A type that packs do not have.
    #[error("tensor {tensor:?} has type {found:?}; a pack holds I8, U8, F16, F32 and I32")]
    Type {
        /// Its name.
        tensor: String,
        /// As the header states it.
        found: String,
    },
    /// Too many dimensions.
    #[error("tensor {tensor:?} has {rank} dimensions but at most {RANK_MAX} are allowed")]
    Rank {
        /// Its name.
        tensor: String,
        /// Its dimensions.
        rank: usize,
    },
    /// Shape and range disagree.
    #[error("tensor {tensor:?} has a shape of {shape_bytes} bytes but a range of {range_bytes}")]
    Size {
        /// Its name.
        tensor: String,
        /// From shape and type; `more than u64` reads as `u64::MAX`.
        shape_bytes: u64,
        /// From its offsets.
        range_bytes: u64,
    },
    /// A range that runs backwards.
    #[error("tensor {tensor:?} ends at {end} before it begins at {begin}")]
    Backwards {
        /// Its name.
        tensor: String,
        /// First byte of the data.
        begin: u64,
        /// Last byte of the data.
        end: u64,
    },
    /// Two tensors share bytes.
    #[error("tensor {tensor:?} begins at {begin} but {before:?} ends at {end}: they overlap")]
    Overlap {
        /// Its name.
        tensor: String,
        /// Where it begins.
        begin: u64,
        /// The tensor before it.
        before: String,
        /// Where that one ends.
        end: u64,
    },
    /// Bytes that belong to no tensor.
    #[error(
        "tensor {tensor:?} begins at {begin} but the tensor before it ends at {end}: the bytes between belong to none"
    )]
    Hole {
        /// Its name.
        tensor: String,
        /// Where it begins.
        begin: u64,
        /// Where the one before it ends.
        end: u64,
    },
    /// Not on a multiple of 64.
    #[error(
        "tensor {tensor:?} lies at bytes {begin}..{end} of the file; both must be multiples of 64 and differ"
    )]
    Unaligned {
        /// Its name.
        tensor: String,
        /// First byte of the file.
        begin: u64,
        /// Last byte of the file.
        end: u64,
    },
    /// Lists disagree.
    #[error("tensor {0:?} stands in only one of the header and plantain.tensors")]
    Unlisted(String),
    /// A hash that is none.
    #[error("tensor {0:?} has a hash that is not 64 lower-case hexadecimal digits")]
    HashForm(String),
    /// Two networks of one name.
    #[error("two networks are called {0:?}")]
    NetworkTwice(String),
    /// A golden pair that does not fit.
    #[error("the golden pair of {network:?} names {name:?}, which is no {what}")]
    Golden {
        /// Its network.
        network: String,
        /// What it names.
        name: String,
        /// What the name should be.
        what: &'static str,
    },
    /// The pipeline names something that is not there.
    #[error("the pipeline names {name:?} as {what}, which the pack lacks")]
    Pipeline {
        /// The name.
        name: String,
        /// What it should be.
        what: &'static str,
    },
    /// The pipeline's sizes contradict each other.
    #[error("the pipeline's {what} is {actual} but must be {allowed}")]
    PipelineSize {
        /// Which number.
        what: &'static str,
        /// The number.
        actual: String,
        /// What it must be.
        allowed: String,
    },
    /// A network breaks a rule.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The tensor's data.
    #[error(
        "tensor {tensor:?} is damaged: its SHA-256 begins {actual} but should begin {expected}; get the file again"
    )]
    Damaged {
        /// Its name.
        tensor: String,
        /// First eight digits, as stated.
        expected: String,
        /// First eight digits, as computed.
        actual: String,
    },
    /// A weight outside the range that kernels can use.
    #[error("tensor {0:?} holds a -128, but int8 values of a pack are -127 to 127; pack it again")]
    Weight128(String),
    /// Asked for, not there.
    #[error("it has no tensor {0:?}; pack it again")]
    NoTensor(String),
    /// Asked for, not there.
    #[error("it has no network {name:?}; it has {has}")]
    NoNetwork {
        /// The name.
        name: String,
        /// Those that it has.
        has: String,
    },
    /// Asked for, not there.
    #[error("it holds a lone network and no pipeline; only bench, plan and inspect can use it")]
    NoPipeline,
    /// Asked for as another type.
    #[error("tensor {tensor:?} is {actual} but was read as {asked}")]
    WrongType {
        /// Its name.
        tensor: String,
        /// Its type.
        actual: &'static str,
        /// The type that was asked for.
        asked: &'static str,
    },
    /// The public key.
    #[error(
        "the public key cannot be read: {0}; give the .pub file of minisign or its second line"
    )]
    Key(String),
    /// No signature beside the pack.
    #[error("a key is configured but {} is missing; sign the pack with `minisign -Sm`", .0.display())]
    NoSignature(PathBuf),
    /// A signature that does not hold.
    #[error("its signature does not hold: {0}; it is not from the holder of the configured key")]
    Signature(String),
}
