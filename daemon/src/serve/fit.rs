//! Pictures that are larger than the broker takes.

use crate::job::Format;

/// Bytes of a packet that are not payload: topic, properties.
const PACKET_OVERHEAD_BYTES: usize = 1024;

/// The picture as it can be sent, with its content type.
///
/// # Errors
/// One sentence with both numbers if it cannot be made small enough.
pub fn fit(
    image: Vec<u8>,
    format: Format,
    packet_bytes_max: Option<u32>,
) -> Result<(Vec<u8>, &'static str), String> {
    let room = packet_bytes_max
        .map_or(usize::MAX, |max| (max as usize).saturating_sub(PACKET_OVERHEAD_BYTES));
    if image.len() <= room {
        return Ok((image, format.content_type()));
    }
    Err(format!(
        "it has {} bytes but the broker takes {room}; raise the broker's limit or choose a smaller size",
        image.len()
    ))
}
