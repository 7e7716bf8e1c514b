//! `plantain serve`: prompts in over MQTT, pictures out, nothing lost.
//!
//! Enters: messages of the broker, reports of the drawer, signals. Leaves: acknowledgements, pictures, results,
//! status. Never: inference on the event loop's thread; an accepted prompt that is not in the journal.

mod answering;
pub mod app;
pub mod artist;
pub mod clock;
pub mod config;
pub mod drawer;
mod fit;
mod intake;
pub mod limits;
pub mod logger;
mod metrics;
pub mod publish;
pub mod run;
pub mod sensors;
pub mod status;
