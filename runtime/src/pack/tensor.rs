//! A tensor of a pack: its shape and its bytes, borrowed from the map.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use half::f16;
use sha2::{Digest, Sha256};

use super::file::Pack;
use super::map::CACHE_BLOCK_BYTES;
use super::{PackError, PackFault};
use crate::hash::hex;

/// The stored type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorType {
    /// Signed bytes: weights.
    I8,
    /// Bytes: tables of the tokenizer.
    U8,
    /// Half floats.
    F16,
    /// Floats: scales, biases.
    F32,
    /// Integers: sums of weights, ids.
    I32,
}

impl TensorType {
    /// Bytes of one value.
    pub const fn bytes(self) -> usize {
        match self {
            TensorType::I8 | TensorType::U8 => 1,
            TensorType::F16 => 2,
            TensorType::F32 | TensorType::I32 => 4,
        }
    }

    /// As safetensors writes it.
    pub const fn name(self) -> &'static str {
        match self {
            TensorType::I8 => "I8",
            TensorType::U8 => "U8",
            TensorType::F16 => "F16",
            TensorType::F32 => "F32",
            TensorType::I32 => "I32",
        }
    }

    /// The inverse of [`TensorType::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::I8, Self::U8, Self::F16, Self::F32, Self::I32]
            .into_iter()
            .find(|dtype| dtype.name() == name)
    }
}

/// What the header says about a tensor, verified.
#[derive(Debug)]
pub(super) struct TensorInfo {
    pub name: Box<str>,
    pub dtype: TensorType,
    pub shape: Box<[usize]>,
    /// Bytes of the file, padding and all.
    pub stored: Range<usize>,
    /// Bytes without padding.
    pub bytes: usize,
    pub sha256: [u8; 32],
    /// Set once the bytes were found to have that hash.
    pub verified: AtomicBool,
}

/// A tensor of an open pack.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'p> {
    pub(super) pack: &'p Pack,
    pub(super) info: &'p TensorInfo,
}

impl<'p> Tensor<'p> {
    /// Its name.
    pub fn name(&self) -> &'p str {
        &self.info.name
    }

    /// Its stored type.
    pub fn dtype(&self) -> TensorType {
        self.info.dtype
    }

    /// Outermost first; without padding.
    pub fn shape(&self) -> &'p [usize] {
        &self.info.shape
    }

    /// Values, without padding.
    pub fn len(&self) -> usize {
        self.info.bytes / self.info.dtype.bytes()
    }

    /// Never: a pack holds no empty tensor.
    pub fn is_empty(&self) -> bool {
        self.info.bytes == 0
    }

    /// Its values as little-endian bytes, on a multiple of 64.
    pub fn bytes(&self) -> &'p [u8] {
        &self.bytes_padded()[..self.info.bytes]
    }

    /// As [`Tensor::bytes`], with the zeros that fill the last 64 bytes.
    pub fn bytes_padded(&self) -> &'p [u8] {
        &self.pack.file_bytes()[self.info.stored.clone()]
    }

    /// Where the file holds it, padding and all; for [`Pack::prefetch`] and [`Pack::release`].
    pub fn file_range(&self) -> Range<u64> {
        self.info.stored.start as u64..self.info.stored.end as u64
    }

    /// The SHA-256 of its stored bytes, as the header states it: 64 hexadecimal digits.
    pub fn sha256(&self) -> String {
        hex(&self.info.sha256)
    }

    /// Compares its bytes with their hash, and signed bytes with their range of -127..=127, the first time;
    /// later calls cost nothing.
    ///
    /// Reads every byte, so that all of its pages become resident.
    ///
    /// # Errors
    /// [`PackFault::Damaged`], [`PackFault::Weight128`].
    pub fn verify(&self) -> Result<(), PackError> {
        if self.info.verified.load(Ordering::Acquire) {
            return Ok(());
        }
        self.verify_anew()
    }

    /// As [`Tensor::verify`], even if it was found whole before.
    ///
    /// # Errors
    /// [`PackFault::Damaged`], [`PackFault::Weight128`].
    pub fn verify_anew(&self) -> Result<(), PackError> {
        self.pack.prefetch(self.file_range())?;
        self.verify_bytes(self.bytes_padded())
    }

    /// As [`Tensor::verify`], of its bytes as they were read elsewhere: see [`Pack::read`], padding and all.
    ///
    /// # Errors
    /// [`PackFault::Damaged`], [`PackFault::Weight128`].
    pub fn verify_bytes(&self, bytes: &[u8]) -> Result<(), PackError> {
        self.judge(Sha256::digest(bytes).into(), self.narrow(bytes))
    }

    /// Whether bytes of this tensor keep to -127..=127, if they are signed: kernels add pairs of products in
    /// 16 bits.
    fn narrow(&self, bytes: &[u8]) -> bool {
        self.info.dtype != TensorType::I8 || !bytes.contains(&0x80)
    }

    fn judge(&self, actual: [u8; 32], narrow: bool) -> Result<(), PackError> {
        let whole = actual == self.info.sha256;
        self.info.verified.store(whole && narrow, Ordering::Release);
        if whole && narrow {
            return Ok(());
        }
        if whole {
            return Err(self.pack.error(PackFault::Weight128(self.info.name.to_string())));
        }
        Err(self.pack.error(PackFault::Damaged {
            tensor: self.info.name.to_string(),
            expected: hex(&self.info.sha256)[..8].to_owned(),
            actual: hex(&actual)[..8].to_owned(),
        }))
    }

    /// As [`Tensor::verify`], but lets go of each piece once it was read: for a large table of which little is
    /// used.
    ///
    /// # Errors
    /// [`PackFault::Damaged`], [`PackFault::Weight128`].
    pub fn verify_passing(&self) -> Result<(), PackError> {
        if self.info.verified.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut hasher = Sha256::new();
        let mut narrow = true;
        let Range { mut start, end } = self.info.stored.clone();
        while start < end {
            // To the end of a block of the page cache, which is read and let go whole.
            let next = end.min((start + 1).next_multiple_of(CACHE_BLOCK_BYTES));
            let piece = &self.pack.file_bytes()[start..next];
            self.pack.prefetch(start as u64..next as u64)?;
            hasher.update(piece);
            narrow &= self.narrow(piece);
            self.pack.release_blocks(start as u64..next as u64)?;
            start = next;
        }
        self.judge(hasher.finalize().into(), narrow)
    }

    /// Its values, if they are signed bytes.
    ///
    /// # Errors
    /// [`PackFault::WrongType`].
    pub fn as_i8(&self) -> Result<&'p [i8], PackError> {
        self.typed(TensorType::I8)
    }

    /// Its values, if they are bytes.
    ///
    /// # Errors
    /// [`PackFault::WrongType`].
    pub fn as_u8(&self) -> Result<&'p [u8], PackError> {
        self.typed(TensorType::U8)
    }

    /// Its values, if they are half floats.
    ///
    /// # Errors
    /// [`PackFault::WrongType`].
    pub fn as_f16(&self) -> Result<&'p [f16], PackError> {
        self.typed(TensorType::F16)
    }

    /// Its values, if they are floats.
    ///
    /// # Errors
    /// [`PackFault::WrongType`].
    pub fn as_f32(&self) -> Result<&'p [f32], PackError> {
        self.typed(TensorType::F32)
    }

    /// Its values, if they are integers.
    ///
    /// # Errors
    /// [`PackFault::WrongType`].
    pub fn as_i32(&self) -> Result<&'p [i32], PackError> {
        self.typed(TensorType::I32)
    }

    fn typed<T: bytemuck::AnyBitPattern>(&self, asked: TensorType) -> Result<&'p [T], PackError> {
        (self.info.dtype == asked)
            .then(|| bytemuck::try_cast_slice(self.bytes()).ok())
            .flatten()
            .ok_or_else(|| {
                self.pack.error(PackFault::WrongType {
                    tensor: self.info.name.to_string(),
                    actual: self.info.dtype.name(),
                    asked: asked.name(),
                })
            })
    }
}

#[cfg(target_endian = "big")]
compile_error!("packs are little-endian and read in place");
