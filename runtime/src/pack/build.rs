//! Small packs, built in memory.
//!
//! Enters: metadata and tensors. Leaves: a pack's bytes. Never: large models, which the packer streams to a
//! file instead.

use std::io::Write;
use std::path::Path;

use half::f16;
use sha2::{Digest, Sha256};

use super::layout::{Layout, Metadata, TensorEntry};
use super::{Pack, PackError, TensorType};
use crate::graph::Graph;

/// Builds a pack whose tensors fit in memory.
///
/// ```
/// use plantain::pack::{Metadata, PackBuilder};
///
/// let pack = PackBuilder::new(Metadata::default()).f32("x", &[3], &[1.0, 2.0, 3.0]).open()?;
/// assert_eq!(pack.tensor("x")?.as_f32()?, [1.0, 2.0, 3.0]);
/// # Ok::<(), plantain::pack::PackError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct PackBuilder {
    metadata: Metadata,
    tensors: Vec<TensorEntry>,
    data: Vec<u8>,
    pads: usize,
}

impl PackBuilder {
    /// An empty pack.
    pub fn new(metadata: Metadata) -> Self {
        PackBuilder { metadata, ..Self::default() }
    }

    /// A pack of a lone network.
    pub fn lone(graph: Graph) -> Self {
        Self::new(Metadata { graphs: vec![graph], ..Metadata::default() })
    }

    /// Appends a tensor from little-endian bytes.
    ///
    /// # Panics
    /// If `bytes` do not fill `shape`.
    #[must_use]
    pub fn tensor(mut self, name: &str, dtype: TensorType, shape: &[usize], bytes: &[u8]) -> Self {
        let mut entry =
            TensorEntry { name: name.to_owned(), dtype, shape: shape.to_vec(), sha256: [0; 32] };
        assert_eq!(entry.bytes(), bytes.len(), "tensor {name:?} of shape {shape:?}");
        let start = self.data.len();
        self.data.extend_from_slice(bytes);
        self.data.resize(start + entry.stored_bytes(), 0);
        entry.sha256 = Sha256::digest(&self.data[start..]).into();
        self.tensors.push(entry);
        self
    }

    /// Appends signed bytes. Panics as [`PackBuilder::tensor`] does.
    #[must_use]
    pub fn i8(self, name: &str, shape: &[usize], values: &[i8]) -> Self {
        self.tensor(name, TensorType::I8, shape, bytemuck::cast_slice(values))
    }

    /// Appends bytes. Panics as [`PackBuilder::tensor`] does.
    #[must_use]
    pub fn u8(self, name: &str, shape: &[usize], values: &[u8]) -> Self {
        self.tensor(name, TensorType::U8, shape, values)
    }

    /// Appends half floats. Panics as [`PackBuilder::tensor`] does.
    #[must_use]
    pub fn f16(self, name: &str, shape: &[usize], values: &[f16]) -> Self {
        self.tensor(name, TensorType::F16, shape, bytemuck::cast_slice(values))
    }

    /// Appends floats. Panics as [`PackBuilder::tensor`] does.
    #[must_use]
    pub fn f32(self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        self.tensor(name, TensorType::F32, shape, bytemuck::cast_slice(values))
    }

    /// Appends integers. Panics as [`PackBuilder::tensor`] does.
    #[must_use]
    pub fn i32(self, name: &str, shape: &[usize], values: &[i32]) -> Self {
        self.tensor(name, TensorType::I32, shape, bytemuck::cast_slice(values))
    }

    /// Moves the next tensor to a page of its own.
    #[must_use]
    pub fn page(mut self) -> Self {
        let bytes = Layout::to_page(self.data.len());
        if bytes > 0 {
            self.tensors.push(Layout::pad(self.pads, bytes));
            self.data.resize(self.data.len() + bytes, 0);
            self.pads += 1;
        }
        self
    }

    /// The file's bytes, not verified.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Layout::header(&self.metadata, &self.tensors);
        bytes.extend_from_slice(&self.data);
        bytes
    }

    /// Verifies it and keeps it in memory.
    ///
    /// # Errors
    /// As [`Pack::from_bytes`].
    pub fn open(&self) -> Result<Pack, PackError> {
        Pack::from_bytes(&self.to_bytes())
    }

    /// Writes it to a file that appears by rename.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let mut file = std::fs::File::create(&part)?;
        file.write_all(&self.to_bytes())?;
        file.sync_all()?;
        std::fs::rename(part, path)
    }
}
