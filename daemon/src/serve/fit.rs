//! What the broker takes.

use crate::mqtt::client::Outbound;

/// Bytes of a packet that are not payload: topic, properties.
const PACKET_OVERHEAD_BYTES: usize = 1024;

/// The largest picture that fits a packet of the broker's largest size.
pub fn image_bytes_max(packet_bytes_max: Option<u32>) -> usize {
    packet_bytes_max.map_or(usize::MAX, |max| (max as usize).saturating_sub(PACKET_OVERHEAD_BYTES))
}

/// Whether the broker takes a message.
///
/// # Errors
/// If not: both numbers and what to do.
pub fn check(message: &Outbound, packet_bytes_max: Option<u32>) -> Result<(), String> {
    let bytes = message.packet_bytes();
    match packet_bytes_max {
        Some(max) if bytes > max as usize => {
            Err(format!("has {bytes} bytes but the broker takes {max}; raise its limit"))
        }
        _ => Ok(()),
    }
}
