//! Baseline JPEG with full chroma, over white.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::{ImageError, Marking, Pixels, check_sides};

/// What an APP1 segment begins with that holds XMP.
pub const XMP_PREFIX: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
/// The most bytes of a segment after its length.
const SEGMENT_BYTES_MAX: usize = 65_533;

pub fn encode(pixels: &Pixels, quality: u8, marking: &Marking) -> Result<Vec<u8>, ImageError> {
    if !(1..=100).contains(&quality) {
        return Err(ImageError::Quality { quality });
    }
    check_sides(pixels, "JPEG", u32::from(u16::MAX))?;
    let mut segment = XMP_PREFIX.to_vec();
    segment.extend_from_slice(marking.xmp().as_bytes());
    if segment.len() > SEGMENT_BYTES_MAX {
        return Err(ImageError::Marking { bytes: segment.len(), max: SEGMENT_BYTES_MAX });
    }
    let rgb: Vec<u8> = pixels.over_white().flatten().collect();
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, quality);
    encoder.set_sampling_factor(SamplingFactor::F_1_1);
    encoder.set_optimized_huffman_tables(true);
    let (width, height) = (pixels.width as u16, pixels.height as u16);
    encoder
        .add_app_segment(1, segment)
        .and_then(|()| encoder.encode(&rgb, width, height, ColorType::Rgb))
        .map_err(|error| ImageError::Encoder { format: "JPEG", problem: error.to_string() })?;
    Ok(file)
}
