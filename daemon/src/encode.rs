//! From a finished picture to the bytes of a file or payload.

use clap::ValueEnum;
use plantain::image::eink::{Dither, Indexed, Palette};
use plantain::image::{self, ImageError};
use plantain::pipeline::Picture;
use serde::{Deserialize, Serialize};

use crate::job::{Drawing, Format};

/// Quality of JPEG files if none is named.
pub const JPEG_QUALITY: u8 = 90;

/// How colours between those of a palette are approached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum DitherChoice {
    /// The nearest colour.
    None,
    /// Error diffusion, Floyd and Steinberg 1976.
    #[default]
    FloydSteinberg,
    /// An 8x8 Bayer matrix.
    Ordered,
}

/// How pictures are encoded.
#[derive(Clone, Debug)]
pub struct Encoding {
    /// Of the file.
    pub format: Format,
    /// 1 to 100, JPEG only.
    pub quality: u8,
    /// Reduce to these colours.
    pub palette: Option<Palette>,
    /// How.
    pub dither: DitherChoice,
    /// Write the prompt into the file.
    pub include_prompt: bool,
}

impl Encoding {
    /// What a job asks for. A palette that does not parse, which no prompt passes with, is none.
    pub fn of(drawing: &Drawing, include_prompt: bool) -> Self {
        Encoding {
            format: drawing.format,
            quality: JPEG_QUALITY,
            palette: Palette::parse(&drawing.palette).ok(),
            dither: drawing.dither,
            include_prompt,
        }
    }

    /// Encodes a picture with its mark that it is generated.
    ///
    /// # Errors
    /// [`ImageError`] if the format has no room for the picture or its mark.
    pub fn encode(&self, picture: &Picture) -> Result<Vec<u8>, ImageError> {
        let marking = picture.marking.clone();
        let marking = if self.include_prompt { marking } else { marking.without_prompt() };
        let palette = match (self.format, &self.palette) {
            (Format::Raw1, _) => Some(Palette::black_and_white()),
            (Format::Raw7, _) => Some(Palette::acep7()),
            (_, palette) => palette.clone(),
        };
        let indexed = palette.map(|palette| {
            let dither = match self.dither {
                DitherChoice::None => Dither::None,
                DitherChoice::FloydSteinberg => Dither::FloydSteinberg,
                DitherChoice::Ordered => Dither::Ordered,
            };
            Indexed::new(&picture.pixels, palette, dither)
        });
        let format = match self.format {
            Format::Raw1 => {
                return Ok(indexed.map(|indexed| indexed.to_raw1()).unwrap_or_default());
            }
            Format::Raw7 => {
                return Ok(indexed.map(|indexed| indexed.to_raw4()).unwrap_or_default());
            }
            Format::Png => match &indexed {
                Some(indexed) => return indexed.encode_png(&marking),
                None => image::Format::Png,
            },
            Format::Jpeg => image::Format::Jpeg { quality: self.quality },
            Format::Webp => image::Format::Webp,
        };
        match indexed {
            Some(indexed) => indexed.to_pixels().encode(format, &marking),
            None => picture.pixels.encode(format, &marking),
        }
    }
}
