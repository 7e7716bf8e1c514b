//! Packs, written.
//!
//! Enters: tensors in execution order, then graphs, pipeline and provenance. Leaves: a verified pack that
//! appears by rename. Never: a pack in memory, a tensor out of its order, a file edited in place.

mod order;

pub use order::execution_order;

use std::collections::HashSet;
use std::fs::{File, Permissions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use plantain::pack::{Layout, Metadata, Pack, PackError, TensorEntry, TensorType};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

/// Tensors of this many bytes begin a page of their own: small enough that few pages of a streamed weight
/// hold something else, large enough that the zeros before it stay below a thirtieth of it on average.
const STREAMED_BYTES_MIN: usize = 256 << 10;

/// Why a pack was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The system refused.
    #[error("cannot write {}: {error}", path.display())]
    Io {
        /// The pack.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A name is used again.
    #[error("two tensors are called {0:?}")]
    NameTwice(String),
    /// Bytes and shape disagree.
    #[error("tensor {name:?} has {actual} bytes but its shape {shape:?} needs {expected}")]
    Size {
        /// Its name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes of that shape.
        expected: usize,
        /// Bytes that were given.
        actual: usize,
    },
    /// What was written is not a pack that the runtime opens.
    #[error("what was written does not open: {0}")]
    Refused(#[from] PackError),
}

/// Writes one pack, tensor by tensor.
///
/// Tensors go to a temporary file beside the pack; the header, which holds their hashes, is put before them
/// at the end.
#[derive(Debug)]
pub struct PackWriter {
    path: PathBuf,
    data: NamedTempFile,
    tensors: Vec<TensorEntry>,
    names: HashSet<String>,
    offset: usize,
    pads: usize,
}

impl PackWriter {
    /// Begins a pack that will appear at `path`.
    ///
    /// # Errors
    /// [`WriteError::Io`] if its folder is missing or not writable.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        let data = temporary(path).map_err(|error| io_at(path, error))?;
        let (tensors, names) = (Vec::new(), HashSet::new());
        Ok(PackWriter { path: path.to_owned(), data, tensors, names, offset: 0, pads: 0 })
    }

    /// Appends a tensor from little-endian bytes.
    ///
    /// # Errors
    /// [`WriteError`] if the name is taken, the bytes do not fill the shape, or the disk is full.
    pub fn tensor(
        &mut self,
        name: &str,
        dtype: TensorType,
        shape: &[usize],
        bytes: &[u8],
    ) -> Result<(), WriteError> {
        let count = shape.iter().try_fold(dtype.bytes(), |bytes, &dim| bytes.checked_mul(dim));
        if count != Some(bytes.len()) || bytes.is_empty() {
            return Err(WriteError::Size {
                name: name.to_owned(),
                shape: shape.to_vec(),
                expected: count.unwrap_or(usize::MAX),
                actual: bytes.len(),
            });
        }
        if self.names.contains(name) {
            return Err(WriteError::NameTwice(name.to_owned()));
        }
        if bytes.len() >= STREAMED_BYTES_MIN {
            self.page()?;
        }
        let mut entry =
            TensorEntry { name: name.to_owned(), dtype, shape: shape.to_vec(), sha256: [0; 32] };
        let zeros = vec![0; entry.stored_bytes() - bytes.len()];
        self.append(bytes)?;
        self.append(&zeros)?;
        entry.sha256 = Sha256::new().chain_update(bytes).chain_update(&zeros).finalize().into();
        self.names.insert(entry.name.clone());
        self.tensors.push(entry);
        Ok(())
    }

    /// Moves the next tensor to a page of its own: where a network begins, whose pages are then let go of
    /// without its neighbours'.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub fn page(&mut self) -> Result<(), WriteError> {
        let bytes = Layout::to_page(self.offset);
        if bytes > 0 {
            let pad = Layout::pad(self.pads, bytes);
            self.pads += 1;
            self.append(&vec![0; bytes])?;
            self.tensors.push(pad);
        }
        Ok(())
    }

    /// Writes the header, opens the result as a device will, and lets it appear.
    ///
    /// # Errors
    /// [`WriteError::Refused`] if the runtime would refuse the pack; nothing appears then.
    pub fn finish(mut self, metadata: &Metadata) -> Result<Pack, WriteError> {
        let io = |error| io_at(&self.path, error);
        let header = Layout::header(metadata, &self.tensors);
        let mut whole = temporary(&self.path).map_err(io)?;
        whole.write_all(&header).map_err(io)?;
        self.data.flush().map_err(io)?;
        self.data.rewind().map_err(io)?;
        io::copy(self.data.as_file_mut(), whole.as_file_mut()).map_err(io)?;
        whole.as_file().sync_all().map_err(io)?;
        Pack::open(whole.path())?;
        whole.persist(&self.path).map_err(|error| io(error.error))?;
        File::open(folder(&self.path)).and_then(|folder| folder.sync_all()).map_err(io)?;
        Ok(Pack::open(&self.path)?)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.offset += bytes.len();
        self.data.write_all(bytes).map_err(|error| io_at(&self.path, error))
    }
}

fn io_at(path: &Path, error: io::Error) -> WriteError {
    WriteError::Io { path: path.to_owned(), error }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file beside the pack that is readable by all (as far as the umask allows) and gone if it is dropped.
fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".plantain-pack-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder(path))
}

#[cfg(test)]
mod tests;
