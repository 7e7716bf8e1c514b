//! MQTT: topics, payloads and the one module that knows rumqttc.
//!
//! Enters: bytes of the broker. Leaves: checked requests, encoded payloads. Never: jobs' state, pictures' contents.

pub mod client;
pub mod message;
mod reason;
pub mod tls;
pub mod topic;
