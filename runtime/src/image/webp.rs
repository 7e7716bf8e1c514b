//! Lossless WebP.

use image_webp::{ColorType, WebPEncoder};

use super::{Channels, ImageError, Marking, Pixels, check_sides};

pub fn encode(pixels: &Pixels, marking: &Marking) -> Result<Vec<u8>, ImageError> {
    check_sides(pixels, "WebP", 1 << 14)?;
    let colour = match pixels.channels {
        Channels::Rgb => ColorType::Rgb8,
        Channels::Rgba => ColorType::Rgba8,
    };
    let mut file = Vec::new();
    let mut encoder = WebPEncoder::new(&mut file);
    encoder.set_xmp_metadata(marking.xmp().into_bytes());
    encoder
        .encode(&pixels.bytes, pixels.width, pixels.height, colour)
        .map_err(|error| ImageError::Encoder { format: "WebP", problem: error.to_string() })?;
    Ok(file)
}
