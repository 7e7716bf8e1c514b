//! PNG, with the settings pinned so that the bytes are.

use png::{BitDepth, ColorType, DeflateCompression, Encoder, Filter};

use super::eink::Indexed;
use super::{Channels, ImageError, Marking, Pixels, check_sides};

/// Sides that PNG allows; the crate counts bytes of a row in u32.
const SIDE_MAX: u32 = 1 << 24;
const DEFLATE_LEVEL: u8 = 6;

pub fn encode(pixels: &Pixels, marking: &Marking) -> Result<Vec<u8>, ImageError> {
    check_sides(pixels, "PNG", SIDE_MAX)?;
    let colour = match pixels.channels {
        Channels::Rgb => ColorType::Rgb,
        Channels::Rgba => ColorType::Rgba,
    };
    write(pixels.width, pixels.height, marking, &pixels.bytes, |encoder| {
        encoder.set_color(colour);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_filter(Filter::Adaptive);
    })
}

/// Encodes a picture of few colours with its palette: 1 or 4 bits a pixel.
pub fn encode_indexed(indexed: &Indexed, marking: &Marking) -> Result<Vec<u8>, ImageError> {
    let colours = indexed.palette().colours();
    let (depth, rows) = if colours.len() <= 2 {
        (BitDepth::One, indexed.packed::<1>())
    } else {
        (BitDepth::Four, indexed.packed::<4>())
    };
    write(indexed.width(), indexed.height(), marking, &rows, |encoder| {
        encoder.set_color(ColorType::Indexed);
        encoder.set_depth(depth);
        encoder.set_palette(colours.concat());
        encoder.set_filter(Filter::NoFilter);
    })
}

fn write(
    width: u32,
    height: u32,
    marking: &Marking,
    rows: &[u8],
    set: impl FnOnce(&mut Encoder<&mut Vec<u8>>),
) -> Result<Vec<u8>, ImageError> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, width, height);
    encoder.set_deflate_compression(DeflateCompression::Level(DEFLATE_LEVEL));
    set(&mut encoder);
    let written = describe(&mut encoder, marking)
        .and_then(|()| encoder.write_header())
        .and_then(|mut writer| writer.write_image_data(rows).and_then(|()| writer.finish()));
    match written {
        Ok(()) => Ok(file),
        Err(error) => Err(ImageError::Encoder { format: "PNG", problem: error.to_string() }),
    }
}

fn describe(
    encoder: &mut Encoder<&mut Vec<u8>>,
    marking: &Marking,
) -> Result<(), png::EncodingError> {
    encoder.add_itxt_chunk("XML:com.adobe.xmp".to_owned(), marking.xmp())?;
    let parameters = marking.parameters();
    // tEXt is Latin-1.
    if parameters.chars().all(|c| u32::from(c) < 256) {
        encoder.add_text_chunk("parameters".to_owned(), parameters)
    } else {
        encoder.add_itxt_chunk("parameters".to_owned(), parameters)
    }
}
