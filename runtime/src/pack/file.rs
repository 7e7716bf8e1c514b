//! An open pack.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::map::Mapped;
use super::meta::{Golden, Provenance, Report};
use super::signature::{self, PublicKey};
use super::tensor::Tensor;
use super::verify::{self, Contents};
use super::{HEADER_BYTES_MAX, PackError, PackFault, TENSOR_ALIGN_BYTES};
use crate::graph::Graph;
use crate::hash::hex;
use crate::pipeline::PipelineSpec;

/// A verified pack. Its tensors borrow the map of its file; opening copies none.
#[derive(Debug)]
pub struct Pack {
    path: PathBuf,
    backing: Backing,
    contents: Contents,
}

#[derive(Debug)]
enum Backing {
    Map(Mapped),
    /// Bytes of a pack that was never a file, in blocks that keep its alignment.
    Memory {
        blocks: Vec<Block>,
        bytes: usize,
    },
}

#[derive(Clone, Copy, Debug, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Block([u8; TENSOR_ALIGN_BYTES]);

impl Pack {
    /// Maps and verifies a pack.
    ///
    /// Reads the header only: tensors are compared with their hashes when they are first used, see
    /// [`Tensor::verify`]. Nobody may change the file while the pack is open; packs are installed by rename.
    ///
    /// # Errors
    /// [`PackError`] with the first thing that is wrong.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PackError> {
        let path = path.as_ref();
        Self::map(path).map_err(|fault| PackError::new(path, fault))
    }

    /// As [`Pack::open`], for an operator who trusts only packs that `key` signed: reads the whole file once
    /// and compares it with the signature beside it, `PATH.minisig`.
    ///
    /// # Errors
    /// [`PackError`], [`PackFault::NoSignature`] and [`PackFault::Signature`] among its faults.
    pub fn open_signed(path: impl AsRef<Path>, key: &PublicKey) -> Result<Self, PackError> {
        let path = path.as_ref();
        let pack = Self::open(path)?;
        signature::check(&pack, path, key).map_err(|fault| PackError::new(path, fault))?;
        Ok(pack)
    }

    /// A pack from bytes that are in memory already, which are copied.
    ///
    /// # Errors
    /// [`PackError`] with the first thing that is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PackError> {
        let mut blocks =
            vec![Block([0; TENSOR_ALIGN_BYTES]); bytes.len().div_ceil(TENSOR_ALIGN_BYTES)];
        bytemuck::cast_slice_mut::<Block, u8>(&mut blocks)[..bytes.len()].copy_from_slice(bytes);
        let backing = Backing::Memory { blocks, bytes: bytes.len() };
        let path = PathBuf::from("<memory>");
        let contents =
            verify::read(backing.bytes()).map_err(|fault| PackError::new(&path, fault))?;
        Ok(Pack { path, backing, contents })
    }

    fn map(path: &Path) -> Result<Self, PackFault> {
        let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => PackFault::Missing,
            _ => PackFault::Io(error),
        })?;
        if !metadata.is_file() {
            return Err(PackFault::NotAFile);
        }
        if metadata.len() < 8 {
            let reason = format!("it has {} bytes", metadata.len());
            return Err(PackFault::NotSafetensors(reason));
        }
        let map = Mapped::open(path)?;
        // What is read is asked for; what the system would read ahead of it may be megabytes that have no place in a budget.
        map.read_ahead(false)?;
        map.prefetch(0..verify::header_bytes(map.bytes()).min(8 + HEADER_BYTES_MAX as usize))?;
        let backing = Backing::Map(map);
        let contents = verify::read(backing.bytes())?;
        let pack = Pack { path: path.to_owned(), backing, contents };
        // The header is not read again while pictures are made.
        let header = 0..pack.contents.header_bytes as u64;
        pack.release(header).map_err(|error| *error.fault)?;
        Ok(pack)
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The SHA-256 of the header, which holds the hash of every tensor: 64 hexadecimal digits that name
    /// this pack. Sidecar files and pictures carry it.
    pub fn hash(&self) -> String {
        hex(&self.contents.hash)
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.file_bytes().len() as u64
    }

    /// Version of its format.
    pub fn version(&self) -> u32 {
        self.contents.version
    }

    /// The networks, in the order in which a picture needs them.
    pub fn graphs(&self) -> &[Graph] {
        &self.contents.graphs
    }

    /// A network by name: `text_encoder`, `denoiser`, `decoder`, `refiner`, `enlarger`.
    ///
    /// # Errors
    /// [`PackFault::NoNetwork`].
    pub fn graph(&self, name: &str) -> Result<&Graph, PackError> {
        self.graphs().iter().find(|graph| graph.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.graphs().iter().map(|graph| &*graph.name).collect();
            self.error(PackFault::NoNetwork { name: name.to_owned(), has: names.join(", ") })
        })
    }

    /// The pipeline.
    ///
    /// # Errors
    /// [`PackFault::NoPipeline`] for a pack of a lone network.
    pub fn pipeline(&self) -> Result<&PipelineSpec, PackError> {
        self.contents.pipeline.as_ref().ok_or_else(|| self.error(PackFault::NoPipeline))
    }

    /// Title, licence, sources.
    pub fn provenance(&self) -> &Provenance {
        &self.contents.provenance
    }

    /// Golden inputs and outputs.
    pub fn golden(&self) -> &[Golden] {
        &self.contents.golden
    }

    /// What the packer found out; read from the header anew, as pictures do not need it.
    ///
    /// # Errors
    /// [`PackFault::Json`].
    pub fn report(&self) -> Result<Option<Report>, PackError> {
        verify::reread(self.file_bytes(), "plantain.report").map_err(|fault| self.error(fault))
    }

    /// A tensor by name.
    ///
    /// # Errors
    /// [`PackFault::NoTensor`].
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, PackError> {
        self.tensor_index(name)
            .map(|index| self.tensor_at(index))
            .ok_or_else(|| self.error(PackFault::NoTensor(name.to_owned())))
    }

    /// A tensor's index in [`Pack::tensors`].
    pub fn tensor_index(&self, name: &str) -> Option<usize> {
        self.contents.find(name)
    }

    /// A tensor by its index.
    ///
    /// # Panics
    /// If there are not that many tensors.
    pub fn tensor_at(&self, index: usize) -> Tensor<'_> {
        Tensor { pack: self, info: &self.contents.tensors[index] }
    }

    /// All tensors in the order of the file, pads among them.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = Tensor<'_>> {
        self.contents.tensors.iter().map(|info| Tensor { pack: self, info })
    }

    /// The whole file, as it is mapped.
    pub fn file_bytes(&self) -> &[u8] {
        self.backing.bytes()
    }

    /// The open file, unless the pack was never one.
    pub fn file(&self) -> Option<&File> {
        match &self.backing {
            Backing::Map(map) => Some(map.file()),
            Backing::Memory { .. } => None,
        }
    }

    /// Reads bytes of the file from `start` on into memory, past the page cache where the file system can. `start`, the
    /// length and the memory lie on multiples of [`READ_ALIGN_BYTES`](super::READ_ALIGN_BYTES); what `out` holds behind the end
    /// of the file is anything.
    ///
    /// # Errors
    /// [`PackFault::Io`].
    pub fn read(&self, start: u64, out: &mut [u8]) -> Result<(), PackError> {
        let start = self.clip(start..start).start;
        match &self.backing {
            Backing::Map(map) => map.read(start, out).map_err(|e| self.error(e.into())),
            Backing::Memory { .. } => {
                let bytes = &self.file_bytes()[start..];
                let length = out.len().min(bytes.len());
                out[..length].copy_from_slice(&bytes[..length]);
                Ok(())
            }
        }
    }

    /// Asks for a range of the file to be read ahead, and returns before it is.
    ///
    /// # Errors
    /// [`PackFault::Io`].
    pub fn prefetch(&self, range: Range<u64>) -> Result<(), PackError> {
        match &self.backing {
            Backing::Map(map) => map.prefetch(self.clip(range)).map_err(|e| self.error(e.into())),
            Backing::Memory { .. } => Ok(()),
        }
    }

    /// Lets go of the pages that lie wholly in a range of the file, in the process and in the page cache.
    /// They are read from storage again when they are next touched.
    ///
    /// # Errors
    /// [`PackFault::Io`].
    pub fn release(&self, range: Range<u64>) -> Result<(), PackError> {
        match &self.backing {
            Backing::Map(map) => map.release(self.clip(range)).map_err(|e| self.error(e.into())),
            Backing::Memory { .. } => Ok(()),
        }
    }

    /// As [`Pack::release`], for a range whose neighbours are not in the page cache or may leave it, too: what the system read
    /// together with its end goes with it.
    ///
    /// # Errors
    /// [`PackFault::Io`].
    pub fn release_blocks(&self, range: Range<u64>) -> Result<(), PackError> {
        match &self.backing {
            Backing::Map(map) => {
                map.release_blocks(self.clip(range)).map_err(|e| self.error(e.into()))
            }
            Backing::Memory { .. } => Ok(()),
        }
    }

    /// Lets go of the pages that lie wholly in a range of the file in the process alone: while the page cache keeps them,
    /// nothing is read from storage when they are next touched.
    ///
    /// # Errors
    /// [`PackFault::Io`].
    pub fn unmap(&self, range: Range<u64>) -> Result<(), PackError> {
        match &self.backing {
            Backing::Map(map) => {
                map.unmap(self.clip(range)).map(|_| ()).map_err(|e| self.error(e.into()))
            }
            Backing::Memory { .. } => Ok(()),
        }
    }

    /// Switches the system's own read-ahead on page faults off (when ranges are prefetched by plan) or on.
    ///
    /// # Errors
    /// [`PackFault::Io`].
    pub fn read_ahead(&self, on: bool) -> Result<(), PackError> {
        match &self.backing {
            Backing::Map(map) => map.read_ahead(on).map_err(|e| self.error(e.into())),
            Backing::Memory { .. } => Ok(()),
        }
    }

    /// Hands every byte of the file to `take` in pieces, from front to back, and lets go of each.
    ///
    /// # Errors
    /// [`PackFault::Io`].
    pub fn read_through(&self, mut take: impl FnMut(&[u8])) -> Result<(), PackError> {
        const PIECE_BYTES: usize = 1 << 20;
        let mut at = 0;
        for piece in self.file_bytes().chunks(PIECE_BYTES) {
            let end = at + piece.len() as u64;
            self.prefetch(end..end + PIECE_BYTES as u64)?;
            take(piece);
            self.release(at..end)?;
            at = end;
        }
        Ok(())
    }

    /// The SHA-256 of the whole file, as `sha256sum` prints it; reads every byte.
    ///
    /// # Errors
    /// [`PackFault::Io`].
    pub fn file_sha256(&self) -> Result<String, PackError> {
        use sha2::Digest;
        let mut hasher = sha2::Sha256::new();
        self.read_through(|piece| hasher.update(piece))?;
        Ok(hex(&hasher.finalize()))
    }

    /// Compares every tensor with its hash and lets go of each.
    ///
    /// # Errors
    /// [`PackFault::Damaged`] for the first that differs.
    pub fn verify_all(&self) -> Result<(), PackError> {
        self.tensors().try_for_each(|tensor| {
            tensor.verify_anew()?;
            self.release(tensor.file_range())
        })
    }

    fn clip(&self, range: Range<u64>) -> Range<usize> {
        let clip = |at: u64| at.min(self.bytes()) as usize;
        clip(range.start)..clip(range.end)
    }

    pub(super) fn error(&self, fault: PackFault) -> PackError {
        PackError::new(&self.path, fault)
    }
}

impl Backing {
    fn bytes(&self) -> &[u8] {
        match self {
            Backing::Map(map) => map.bytes(),
            Backing::Memory { blocks, bytes } => &bytemuck::cast_slice(blocks)[..*bytes],
        }
    }
}
