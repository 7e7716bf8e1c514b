//! What a request becomes.

use super::cost::CostReport;
use crate::image::{Format, ImageError, Marking, Pixels};

/// A finished picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Pixels, sRGB; with opacity where the model has it.
    pub pixels: Pixels,
    /// How it was made, for its file.
    pub marking: Marking,
    /// What it cost.
    pub cost: CostReport,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

impl Picture {
    /// Encodes the picture with its marking, prompt included; see [`Marking::without_prompt`].
    ///
    /// # Errors
    /// [`ImageError`] if the format has no room for it.
    pub fn encode(&self, format: Format) -> Result<Vec<u8>, ImageError> {
        self.pixels.encode(format, &self.marking)
    }
}

/// Something that does not prevent a picture but may disappoint.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// The prompt was too long for the text encoder.
    #[error(
        "the prompt has {whole} tokens but the model reads {used}; what comes after is ignored"
    )]
    PromptCut {
        /// Tokens with the style and the special ones.
        whole: u32,
        /// Of these read.
        used: u32,
    },
    /// The same of the negative prompt.
    #[error(
        "the negative prompt has {whole} tokens but the model reads {used}; what comes after is ignored"
    )]
    NegativeCut {
        /// Tokens with the special ones.
        whole: u32,
        /// Of these read.
        used: u32,
    },
    /// Guidance 1 runs no pass that the negative prompt could enter.
    #[error("the negative prompt has no effect at guidance scale 1; use a larger one")]
    NegativeUnused,
    /// The model knows other words.
    #[error("the model knows no word of this prompt; closest known: {}", closest.join(", "))]
    UnknownWords {
        /// At most three.
        closest: Vec<String>,
    },
}
