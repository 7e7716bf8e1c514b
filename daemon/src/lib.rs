//! What is installed on a device: the command line and the MQTT daemon.
//!
//! Enters: arguments, configuration, prompts over MQTT. Leaves: pictures, results, reports. Never: ONNX, inference of its own.

#![deny(unsafe_code)]

pub mod cli;
mod cores;
#[cfg(feature = "demo")]
pub mod demo;
pub mod encode;
pub mod homeassistant;
pub mod job;
pub mod mqtt;
pub mod report;
pub mod serve;
pub mod size;
mod sysfs;
