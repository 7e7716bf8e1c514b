//! Where an engine finds the tensors of a graph.

use std::collections::HashMap;
use std::ops::Range;

use crate::pack::{Pack, Tensor};

/// Tensors by name, in one run of bytes: an open pack's map, or memory.
///
/// Bytes are little-endian, every tensor starts on a multiple of 64 bytes.
pub trait Weights: Send + Sync {
    /// All bytes; tensors are ranges of them.
    fn bytes(&self) -> &[u8];

    /// The bytes of a tensor, without padding.
    fn find(&self, name: &str) -> Option<Range<usize>>;

    /// Checks a tensor against its hash; costs nothing after the first time. `passing` lets go of what was read
    /// on the way, for a tensor of which little is used.
    ///
    /// # Errors
    /// One sentence.
    fn verify(&self, name: &str, passing: bool) -> Result<(), String>;

    /// Checks bytes of a tensor that were read elsewhere, padding to a multiple of 64 and all, against its hash.
    ///
    /// # Errors
    /// One sentence.
    fn verify_bytes(&self, name: &str, bytes: &[u8]) -> Result<(), String>;

    /// Copies bytes from `start` on, past any cache where that can be; see [`Pack::read`] for what must lie where. Of no bytes,
    /// it makes ready what later calls need.
    ///
    /// # Errors
    /// One sentence.
    fn read(&self, start: usize, out: &mut [u8]) -> Result<(), String>;

    /// Switches the system's own read-ahead off, where every range is asked for by plan, or on.
    fn read_ahead(&self, on: bool);

    /// Asks the system to read a range of [`Weights::bytes`] ahead.
    fn prefetch(&self, range: Range<usize>);

    /// Lets go of the whole pages of a range, in the process and in the page cache.
    fn release(&self, range: Range<usize>);

    /// Lets go of the whole pages of a range in the process alone.
    fn unmap(&self, range: Range<usize>);
}

impl Weights for Pack {
    fn bytes(&self) -> &[u8] {
        self.file_bytes()
    }

    fn find(&self, name: &str) -> Option<Range<usize>> {
        let tensor = self.tensor_at(self.tensor_index(name)?);
        let start = tensor.file_range().start as usize;
        Some(start..start + tensor.bytes().len())
    }

    fn verify(&self, name: &str, passing: bool) -> Result<(), String> {
        let check = |tensor: Tensor<'_>| {
            if passing { tensor.verify_passing() } else { tensor.verify() }
        };
        self.tensor(name).and_then(check).map_err(|error| error.to_string())
    }

    fn verify_bytes(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let check = |tensor: Tensor<'_>| tensor.verify_bytes(bytes);
        self.tensor(name).and_then(check).map_err(|error| error.to_string())
    }

    fn read(&self, start: usize, out: &mut [u8]) -> Result<(), String> {
        Pack::read(self, start as u64, out).map_err(|error| error.to_string())
    }

    fn read_ahead(&self, on: bool) {
        if let Err(error) = Pack::read_ahead(self, on) {
            log::debug!("{error}");
        }
    }

    fn prefetch(&self, range: Range<usize>) {
        // A hint: what was not read ahead is read when it is touched.
        if let Err(error) = Pack::prefetch(self, range.start as u64..range.end as u64) {
            log::debug!("{error}");
        }
    }

    fn release(&self, range: Range<usize>) {
        if let Err(error) = Pack::release_blocks(self, range.start as u64..range.end as u64) {
            log::debug!("{error}");
        }
    }

    fn unmap(&self, range: Range<usize>) {
        if let Err(error) = Pack::unmap(self, range.start as u64..range.end as u64) {
            log::debug!("{error}");
        }
    }
}

/// Tensors that were made in memory: for tests and for tools that have no file yet.
#[derive(Clone, Debug, Default)]
pub struct MemoryWeights {
    lines: Vec<Line>,
    ranges: HashMap<String, Range<usize>>,
}

#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl MemoryWeights {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tensors.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Adds a tensor, or replaces the one of this name.
    pub fn insert<T: bytemuck::NoUninit>(&mut self, name: &str, values: &[T]) {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let start = self.lines.len() * size_of::<Line>();
        for chunk in bytes.chunks(size_of::<Line>()) {
            let mut line = Line([0; 64]);
            line.0[..chunk.len()].copy_from_slice(chunk);
            self.lines.push(line);
        }
        self.ranges.insert(name.to_owned(), start..start + bytes.len());
    }
}

impl Weights for MemoryWeights {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.lines)
    }

    fn find(&self, name: &str) -> Option<Range<usize>> {
        self.ranges.get(name).cloned()
    }

    fn verify(&self, _name: &str, _passing: bool) -> Result<(), String> {
        Ok(())
    }

    fn verify_bytes(&self, _name: &str, _bytes: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn read(&self, start: usize, out: &mut [u8]) -> Result<(), String> {
        let bytes = &self.bytes()[start..];
        let length = out.len().min(bytes.len());
        out[..length].copy_from_slice(&bytes[..length]);
        Ok(())
    }

    fn read_ahead(&self, _on: bool) {}

    fn prefetch(&self, _range: Range<usize>) {}

    fn release(&self, _range: Range<usize>) {}

    fn unmap(&self, _range: Range<usize>) {}
}
