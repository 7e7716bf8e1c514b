//! From a prompt to pixels: tokenizer, text encoder, denoise loop, decoder, refiner.
//!
//! Enters: an open pack, a request. Leaves: pixels and what they cost. Never: files, networks, terminals.

pub mod scheduler;
mod spec;
pub mod tokenizer;

pub use spec::{
    BetaSchedule, PipelineSpec, Prediction, SchedulerSpec, SizeSpec, Style, TokenizerKind,
    TokenizerSpec, Wiring,
};
