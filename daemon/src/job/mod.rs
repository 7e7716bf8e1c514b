//! Jobs: one prompt on its way to its answer.
//!
//! Enters: checked requests, what the drawer reports. Leaves: decisions (accept, refuse, answer again), records for
//! the journal, the next job to draw. Never: sockets, files (but for [`journal`] and [`answers`]), clocks.

pub mod answers;
pub mod journal;
mod machine;
mod queue;
#[cfg(test)]
mod simulation;

pub use machine::{Cancelled, Decision, Machine, MachineLimits};
pub use queue::{QUEUE_LENGTH_MAX, Queue, QueueFull};

use serde::{Deserialize, Serialize};

use crate::encode::DitherChoice;

/// What a picture is encoded as.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Lossless, the default.
    #[default]
    Png,
    /// Small, for photographs.
    Jpeg,
    /// Lossless WebP.
    Webp,
    /// Raw 1 bit a pixel, rows padded to bytes, most significant bit left, 1 is white: for e-ink clients.
    Raw1,
    /// Raw 4 bits a pixel, 7-colour ACeP palette, high nibble left: for e-ink clients.
    Raw7,
}

impl Format {
    /// The MQTT content type (MIME).
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Png => "image/png",
            Format::Jpeg => "image/jpeg",
            Format::Webp => "image/webp",
            Format::Raw1 => "application/vnd.plantain.raw1",
            Format::Raw7 => "application/vnd.plantain.raw7",
        }
    }

    /// File name extension.
    pub const fn extension(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Jpeg => "jpg",
            Format::Webp => "webp",
            Format::Raw1 => "raw1",
            Format::Raw7 => "raw7",
        }
    }
}

/// What is to be drawn, with every default filled in, so that a redrawn job gives the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drawing {
    /// The user's words.
    pub prompt: String,
    /// What to keep out.
    #[serde(default)]
    pub negative: String,
    /// A style of the pack.
    #[serde(default)]
    pub style: Option<String>,
    /// Of the first picture; the others count up.
    pub seed: u64,
    /// Denoising steps; `None` is the pack's default.
    #[serde(default)]
    pub steps: Option<u32>,
    /// Guidance scale; `None` is the pack's default.
    #[serde(default)]
    pub guidance: Option<f32>,
    /// Width, height in pixels; `None` is the pack's default.
    #[serde(default)]
    pub size: Option<[u32; 2]>,
    /// Pictures.
    pub count: u32,
    /// Encoding.
    pub format: Format,
    /// Colours of an e-ink panel; empty: all.
    #[serde(default)]
    pub palette: String,
    /// How colours between those of the palette are approached.
    #[serde(default)]
    pub dither: DitherChoice,
    /// Whether the picture is shown as it stands with each step's progress.
    #[serde(default)]
    pub preview: bool,
}

/// Who asked, and under which name: two prompts with the same identity are one job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// The sender: its `client` key or user property, else its response topic, else empty.
    pub sender: String,
    /// The sender's `id` key, else its correlation data in hexadecimal.
    pub id: String,
}

/// Where an answer goes beside the device's own topics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// MQTT 5 response topic, already checked against the allowed prefixes.
    #[serde(default)]
    pub topic: Option<String>,
    /// MQTT 5 correlation data, hexadecimal.
    #[serde(default)]
    pub correlation_hex: Option<String>,
}

impl Reply {
    /// The correlation data as bytes.
    pub fn correlation(&self) -> Option<Vec<u8>> {
        let hex = self.correlation_hex.as_ref()?;
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()).collect()
    }
}

/// One accepted prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Unique on this device; shown to users.
    pub job: String,
    /// Absent for plain prompts, which are drawn at least once.
    #[serde(default)]
    pub identity: Option<Identity>,
    /// What to draw.
    pub drawing: Drawing,
    /// Higher goes first; equal ones in order of arrival.
    #[serde(default)]
    pub priority: i8,
    /// Where the answer goes.
    #[serde(default)]
    pub reply: Reply,
    /// Unix time in milliseconds.
    pub accepted_ms: u64,
    /// Unix time in milliseconds after which it is not drawn. MQTT 5 message expiry.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// It was drawn before and a power cut took its pictures. Its sender may have that answer, so that it can end in no
    /// other way.
    #[serde(default)]
    pub is_again: bool,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its pictures are in the answer.
    Done,
    /// It could not be drawn; the answer says why.
    Failed,
    /// Its sender took it back.
    Cancelled,
    /// Its message expiry passed before it was drawn.
    Expired,
}

/// A picture that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Size of its file.
    pub bytes: u64,
    /// Its encoding: the job's, or a smaller one where the broker takes no more.
    pub format: Format,
}

impl Answer {
    /// Bytes of all its pictures.
    pub fn image_bytes(&self) -> u64 {
        self.images.iter().map(|image| image.bytes).sum()
    }
}

/// What a job's sender gets: kept until its place is needed, so that a repeated prompt is answered with the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// How it ended.
    pub outcome: Outcome,
    /// The result message's JSON.
    pub result: serde_json::Value,
    /// Its picture files, by index.
    #[serde(default)]
    pub images: Vec<Stored>,
}
