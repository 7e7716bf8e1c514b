//! What the broker takes.

/// Bytes of a packet that are not payload: topic, properties.
const PACKET_OVERHEAD_BYTES: usize = 1024;

/// The largest picture that fits a packet of the broker's largest size.
pub fn image_bytes_max(packet_bytes_max: Option<u32>) -> usize {
    packet_bytes_max.map_or(usize::MAX, |max| (max as usize).saturating_sub(PACKET_OVERHEAD_BYTES))
}
