//! The arena: one allocation that holds every value of every network of a pipeline.
//!
//! Enters: a size that a plan states. Leaves: bytes on 64-byte lines, handed out as typed views. Never: a
//! second allocation, knowledge of ops or of weights.

mod region;

pub use region::Arena;

/// Bytes that every region's offset is a multiple of: one cache line, one panel group.
pub const ARENA_ALIGN: usize = 64;

/// Bytes that the arena itself lies on a multiple of: a block of storage may be read into it.
const BASE_ALIGN: usize = 4096;

/// Why there is no arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArenaError {
    /// The system has no memory left.
    #[error(
        "the system has no {bytes} bytes for the arena; choose a smaller size or stop another program"
    )]
    OutOfMemory {
        /// What was asked for.
        bytes: usize,
    },
}

/// Rounds up to a multiple of [`ARENA_ALIGN`].
pub const fn align_up(bytes: usize) -> usize {
    bytes.div_ceil(ARENA_ALIGN) * ARENA_ALIGN
}
