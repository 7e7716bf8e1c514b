//! What the daemon says of itself: the retained status message and its counters.

use std::collections::VecDeque;

use plantain::pipeline::SizeSpec;
use serde_json::{Value, json};

use super::app::{App, PAYLOAD_VERSION};
use super::clock::unix_ms;
use crate::job::Outcome;

/// The prompt as it is, without the words of a style.
pub const NO_STYLE: &str = "none";
/// Samples from which medians are made.
const SAMPLES_MAX: usize = 256;

/// What draws.
#[derive(Clone, Debug)]
pub struct Model {
    /// Pack's name.
    pub name: String,
    /// SHA-256 of the pack's header, hexadecimal.
    pub sha256: String,
    /// Styles that prompts may name.
    pub styles: Vec<String>,
    /// Sizes that prompts may ask for.
    pub sizes: SizeSpec,
    /// Board profile.
    pub board: String,
    /// Accelerators in use.
    pub accelerators: Vec<String>,
    /// Budget of the process in bytes.
    pub budget_bytes: u64,
}

impl Model {
    /// One without a name, for tests.
    #[cfg(test)]
    pub fn nameless() -> Self {
        let sizes = SizeSpec {
            latent_channels: 4,
            cell_pixels: 8,
            default: [128, 128],
            min: [64, 64],
            max: [256, 256],
            multiple: 8,
            range: [-1.0, 1.0],
            latent_scale: 1.0,
            latent_shift: 0.0,
            enlarge: None,
        };
        let (name, sha256, board) = Default::default();
        let (styles, accelerators) = (Vec::new(), Vec::new());
        Model { name, sha256, styles, sizes, board, accelerators, budget_bytes: 0 }
    }

    /// Whether prompts may name this style.
    pub fn has_style(&self, style: &str) -> bool {
        style == NO_STYLE || self.styles.iter().any(|known| known == style)
    }

    /// The styles that prompts may name, for messages.
    pub fn style_list(&self) -> String {
        format!("{} and {NO_STYLE}", self.styles.join(", "))
    }
}

/// The newest samples of a duration.
#[derive(Clone, Debug, Default)]
pub struct Samples(VecDeque<f64>);

impl Samples {
    /// Adds a sample in milliseconds; the oldest gives way.
    pub fn add(&mut self, ms: f64) {
        if self.0.len() == SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(ms);
    }

    /// The median in milliseconds.
    pub fn median(&self) -> Option<f64> {
        let mut sorted: Vec<f64> = self.0.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }
}

/// What has happened since the start.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Connections made.
    pub connections: u64,
    /// Prompt messages received.
    pub prompts: u64,
    /// Prompts that became jobs.
    pub accepted: u64,
    /// Messages answered with a refusal.
    pub refused: u64,
    /// Prompts whose job was known.
    pub repeated: u64,
    /// Messages that are not for the daemon.
    pub ignored: u64,
    /// Jobs drawn.
    pub done: u64,
    /// Jobs that failed.
    pub failed: u64,
    /// Jobs taken back.
    pub cancelled: u64,
    /// Jobs that expired.
    pub expired: u64,
    /// From a prompt's receipt, where the drawer was free, to the start of drawing.
    pub start_ms: Samples,
    /// From the encoded picture to its last byte in the socket.
    pub publish_ms: Samples,
}

impl Counters {
    /// Counts a job's end.
    pub fn ended(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Done => &mut self.done,
            Outcome::Failed => &mut self.failed,
            Outcome::Cancelled => &mut self.cancelled,
            Outcome::Expired => &mut self.expired,
        } += 1;
    }

    /// Name, help and value of each counter.
    pub fn list(&self) -> [(&'static str, &'static str, u64); 10] {
        [
            ("connections", "Connections made to the broker", self.connections),
            ("prompts", "Prompt messages received", self.prompts),
            ("accepted", "Prompts that became jobs", self.accepted),
            ("refused", "Messages answered with a refusal", self.refused),
            ("repeated", "Prompts whose job was known", self.repeated),
            ("ignored", "Messages that were not for the daemon", self.ignored),
            ("done", "Jobs drawn", self.done),
            ("failed", "Jobs that failed", self.failed),
            ("cancelled", "Jobs taken back", self.cancelled),
            ("expired", "Jobs whose expiry passed", self.expired),
        ]
    }
}

impl App {
    /// The status message.
    pub fn status(&self) -> Value {
        let (answers, answers_bytes) = self.machine.answers();
        let counters: serde_json::Map<String, Value> = self
            .counters
            .list()
            .into_iter()
            .map(|(name, _, value)| (name.into(), value.into()))
            .collect();
        let state = if self.ending {
            "offline"
        } else if self.machine.drawing().is_some() {
            "drawing"
        } else {
            "idle"
        };
        let queue = self.machine.queue();
        json!({
            "version": PAYLOAD_VERSION,
            "state": state,
            "software": env!("CARGO_PKG_VERSION"),
            "time_ms": unix_ms(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "queue": {"waiting": queue.len(), "capacity": queue.capacity()},
            "drawing": self.machine.drawing(),
            "model": {"name": self.model.name, "sha256": self.model.sha256, "styles": self.model.styles},
            "defaults": {"style": self.rules.style, "steps": self.rules.steps, "guidance": self.rules.guidance},
            "board": self.model.board,
            "accelerators": self.model.accelerators,
            "temperature_celsius": self.sensors.temperature_celsius(),
            "memory": {"rss_bytes": rss_bytes(), "budget_bytes": self.model.budget_bytes},
            "disk": {"journal_bytes": self.journal.bytes(), "answers": answers, "answers_bytes": answers_bytes},
            "counters": counters,
            "overhead_ms": {
                "start": self.counters.start_ms.median(),
                "publish": self.counters.publish_ms.median(),
            },
        })
    }

    /// The counters in Prometheus' text format, version 0.0.4.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        for (name, help, value) in self.counters.list() {
            text.push_str(&format!(
                "# HELP plantain_{name}_total {help}\n# TYPE plantain_{name}_total counter\nplantain_{name}_total {value}\n"
            ));
        }
        let queue = self.machine.queue();
        let (answers, answers_bytes) = self.machine.answers();
        for (name, help, value) in [
            ("queue_waiting", "Jobs that wait", queue.len() as u64),
            ("queue_capacity", "Jobs that may wait", queue.capacity() as u64),
            ("drawing", "Jobs that are being drawn", u64::from(self.machine.drawing().is_some())),
            ("answers", "Answers kept", answers as u64),
            ("answers_bytes", "Bytes of pictures kept", answers_bytes),
            ("journal_bytes", "Bytes of the journal", self.journal.bytes()),
            ("rss_bytes", "Resident memory", rss_bytes().unwrap_or(0)),
            ("budget_bytes", "Memory budget", self.model.budget_bytes),
            ("connected", "Whether the broker is there", u64::from(self.connection.is_connected())),
        ] {
            text.push_str(&format!("# HELP plantain_{name} {help}\n# TYPE plantain_{name} gauge\nplantain_{name} {value}\n"));
        }
        text
    }
}

/// Resident memory of this process.
pub fn rss_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
