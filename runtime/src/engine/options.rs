//! What an engine is made for.

use crate::kernel::Kernels;

/// Inputs of a network that stay the same over many of its runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SteadyInputs {
    /// The network's name.
    pub network: String,
    /// Names of its inputs.
    pub inputs: Vec<String>,
}

/// Tokens of a network that are padding, as its mask says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaddedTokens {
    /// The network's name.
    pub network: String,
    /// Name of the input `[samples, tokens]` that is 1 for tokens that count and 0 for padding behind them. Fed with
    /// anything else, the network does all its work.
    pub mask: String,
    /// Names of outputs with one row a token: those of padding read as zeros.
    pub outputs: Vec<String>,
}

/// What an engine is made for.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Workers, the caller counted.
    pub threads: usize,
    /// Most bytes of the arena.
    pub arena_bytes_max: usize,
    /// Most bytes of the whole process: code, heap, arena and weights in memory.
    pub budget_bytes: Option<u64>,
    /// Bytes of the budget that the caller needs after load.
    pub reserve_bytes: u64,
    /// Bytes that the process takes without arena and weights; measured if none are given.
    pub process_bytes: Option<u64>,
    /// Inputs that stay the same over many runs: what depends on them alone is computed once and kept, where the budget
    /// has room. See [`Engine::forget`](super::Engine::forget).
    pub steady: Option<SteadyInputs>,
    /// What tells padding from tokens that count. Rows of padding that provably change nothing are not computed; other inputs
    /// must hold numbers there, whichever. See [`crate::plan::Padding`].
    pub padding: Vec<PaddedTokens>,
    /// The core that each worker is kept on, the caller's first; empty: the system moves threads as it likes. The thread that
    /// runs a network stays on its core afterwards.
    pub cores: Vec<usize>,
    /// The kernels; [`Kernels::chosen`] if none are named.
    pub kernels: Option<&'static Kernels>,
}

impl EngineOptions {
    /// As many bytes as are fast, the best kernels.
    pub fn new(threads: usize) -> Self {
        EngineOptions {
            threads,
            arena_bytes_max: usize::MAX,
            budget_bytes: None,
            reserve_bytes: 0,
            process_bytes: None,
            steady: None,
            padding: Vec::new(),
            cores: Vec::new(),
            kernels: None,
        }
    }
}
