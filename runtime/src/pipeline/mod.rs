//! From a prompt to pixels: tokenizer, text encoder, denoise loop, decoder, refiner.
//!
//! Enters: an open pack, a [`Request`]. Leaves: a [`Picture`]: pixels and what they cost. Never: networks' insides,
//! picture files, sockets, terminals.
//!
//! One picture runs so: the style is put around the prompt, the text is tokenised and encoded ([`tokenizer`]; texts that
//! were encoded before are kept), noise comes from the seed ([`crate::rng`]), each denoising step runs the denoiser, mixes
//! conditional and unconditional answers and lets the [`scheduler`] move the latent, the decoder makes an image of
//! it, the refiner, if there is one, a larger or better one, and values become bytes. From the first step of the text
//! encoder to the finished pixels nothing is allocated: all buffers are made when the size is planned.

mod cost;
mod denoise;
mod draw;
mod error;
mod generate;
mod networks;
mod picture;
mod render;
mod request;
pub mod scheduler;
mod spec;
mod step_cache;
mod text;
pub mod tokenizer;
mod vocabulary;

pub use cost::{CostReport, StageSeconds, cpu_time, peak_rss_bytes};
pub use error::PipelineError;
pub use generate::Pipeline;
pub use picture::{Picture, Warning};
pub use request::{Options, Preview, Progress, Request, Stage};
pub use spec::{
    BetaSchedule, PipelineSpec, Prediction, SchedulerSpec, SizeSpec, Style, TokenizerKind,
    TokenizerSpec, Wiring,
};
pub use step_cache::StepCache;
pub use text::TEXTS_KEPT;
pub use vocabulary::WORD_STATES;

#[cfg(test)]
mod tests;
