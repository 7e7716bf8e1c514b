//! Why no picture was made.

use super::scheduler::SchedulerError;
use super::tokenizer::{PromptError, TokenizerError};
use crate::engine::EngineError;
use crate::graph::DimError;
use crate::pack::PackError;

/// Every failure between a pack and a picture.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The pack is damaged or lacks something.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The prompt is none.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The tokenizer's tables are damaged.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// No schedule fits.
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    /// The networks cannot be planned, for example within the budget, or did not run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A network cannot have this size.
    #[error("network {network:?}, value {value:?}: {error}")]
    Dim {
        /// Network.
        network: String,
        /// Input or output.
        value: String,
        /// Why.
        error: DimError,
    },
    /// A size between multiples.
    #[error(
        "size {width}x{height} is not a multiple of {multiple} on both sides; the nearest is {nearest_width}x{nearest_height}"
    )]
    SizeMultiple {
        /// As asked.
        width: u32,
        /// As asked.
        height: u32,
        /// Of the pack.
        multiple: u32,
        /// What would work.
        nearest_width: u32,
        /// What would work.
        nearest_height: u32,
    },
    /// A size that the pack does not allow.
    #[error(
        "size {width}x{height} is outside {}x{} to {}x{}, which this pack draws; choose one between{}",
        min[0], min[1], max[0], max[1], if *enlarge > 1 { format!(", or {enlarge} times one") } else { String::new() }
    )]
    SizeRange {
        /// As asked.
        width: u32,
        /// As asked.
        height: u32,
        /// Of the pack: width, height.
        min: [u32; 2],
        /// Of the pack: width, height.
        max: [u32; 2],
        /// How much larger the pack's enlarger draws; 1 without one.
        enlarge: u32,
    },
    /// Steps that compute lie too close or too far apart.
    #[error(
        "the step cache is {every} but must be {min} to {max}: every so many steps the denoiser runs"
    )]
    StepCache {
        /// What was asked for.
        every: u32,
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// Not a guidance scale.
    #[error("guidance scale {scale} is not between 0 and {max}; 1 to 10 is usual")]
    Guidance {
        /// As asked.
        scale: f32,
        /// The largest.
        max: f32,
    },
    /// A style that the pack lacks.
    #[error("this pack has no style {name:?}; it has {has}")]
    Style {
        /// As asked.
        name: String,
        /// Those that there are.
        has: String,
    },
    /// The pack's pipeline and its networks do not fit together.
    #[error(
        "the pack's pipeline and its network {network:?} disagree about {value:?}: {problem}; pack it again"
    )]
    Wiring {
        /// Network.
        network: String,
        /// Input, output or tensor.
        value: String,
        /// What is wrong.
        problem: String,
    },
    /// A token that the text encoder has no row for.
    #[error(
        "the tokenizer gives id {id} but the text encoder has {rows} rows; the pack's tables do not belong together, pack it again"
    )]
    TokenId {
        /// The id.
        id: i32,
        /// Rows of the smallest table that reads it.
        rows: u32,
    },
    /// The caller stopped it.
    #[error("stopped")]
    Cancelled,
}

impl PipelineError {
    /// Whether the caller stopped it.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, PipelineError::Cancelled | PipelineError::Engine(EngineError::Cancelled))
    }
}
