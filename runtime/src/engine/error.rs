//! Why an engine cannot be made, or a run ended early.

use crate::arena::ArenaError;
use crate::graph::{DimError, Fault};
use crate::kernel::KernelError;
use crate::plan::PlanError;
use crate::units::Bytes;

use super::pool::Stopped;

/// Every failure of an engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// No plan is within the budget.
    #[error(
        "the budget of {} is too small: at least {} are needed ({} for the process, {} of arena, {} of weights at a time); give --budget {}M or choose a smaller size",
        Bytes(*budget_bytes), Bytes(*needed_bytes), Bytes(*process_bytes), Bytes(*arena_bytes), Bytes(*weight_bytes),
        needed_bytes.div_ceil(1 << 20)
    )]
    Budget {
        /// The budget.
        budget_bytes: u64,
        /// The smallest that works.
        needed_bytes: u64,
        /// Of these: code, heap, stacks, what the caller reserves.
        process_bytes: u64,
        /// The arena.
        arena_bytes: u64,
        /// The most weights at a time.
        weight_bytes: u64,
    },
    /// There is no arena.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// There are no such kernels.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The system gives no threads.
    #[error("cannot start {threads} threads: {error}; ask for fewer with --threads")]
    Threads {
        /// How many.
        threads: usize,
        /// Why.
        error: std::io::Error,
    },
    /// As many cores as threads are needed.
    #[error("{threads} threads cannot be kept on {cores} cores; name as many cores as threads")]
    Cores {
        /// Threads.
        threads: usize,
        /// Cores that were named.
        cores: usize,
    },
    /// No such core.
    #[error(
        "no thread can be kept on core {core}: this machine has the cores {online}, and the process may be confined to some of them; name others"
    )]
    Core {
        /// The core that was named.
        core: usize,
        /// Cores as the system lists them.
        online: String,
    },
    /// A node breaks a rule.
    #[error("network {network:?}, node {node:?}: {fault}")]
    Graph {
        /// Network.
        network: String,
        /// Node.
        node: String,
        /// Which rule.
        fault: Fault,
    },
    /// A slice starts nowhere.
    #[error("network {network:?}, node {node:?}: the slice's start: {error}")]
    Slice {
        /// Network.
        network: String,
        /// Node.
        node: String,
        /// Why.
        error: DimError,
    },
    /// The pack lacks a tensor.
    #[error(
        "network {network:?}, node {node:?} reads tensor {tensor:?}, which is not there; pack it again"
    )]
    Tensor {
        /// Network.
        network: String,
        /// Node.
        node: String,
        /// Tensor.
        tensor: String,
    },
    /// A tensor has another size.
    #[error(
        "network {network:?}, node {node:?}: tensor {tensor:?} has {actual} bytes but {expected} are read; pack it again"
    )]
    TensorBytes {
        /// Network.
        network: String,
        /// Node.
        node: String,
        /// Tensor.
        tensor: String,
        /// Bytes that it has.
        actual: usize,
        /// Bytes that the node reads.
        expected: usize,
    },
    /// Two networks of one name, or none.
    #[error("there is no single network {name:?}; there are {has}")]
    Network {
        /// The name.
        name: String,
        /// Those that there are.
        has: String,
    },
    /// No such input or output, or one of another type.
    #[error("network {network:?} has no {what} {name:?}; it has {has}")]
    Value {
        /// Network.
        network: String,
        /// `float input`, `id input`, `output`.
        what: &'static str,
        /// The name that was asked for.
        name: String,
        /// Those that there are.
        has: String,
    },
    /// Too many or too few values.
    #[error("{name:?} of network {network:?} has {expected} values but {actual} were given")]
    Length {
        /// Network.
        network: String,
        /// Input or output.
        name: String,
        /// As planned.
        expected: usize,
        /// As given.
        actual: usize,
    },
    /// A weight is damaged.
    #[error("{0}")]
    Weights(String),
    /// The observer stopped the run.
    #[error("stopped")]
    Cancelled,
    /// A worker panicked.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}
