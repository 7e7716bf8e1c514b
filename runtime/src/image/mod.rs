//! Pictures as files: PNG, JPEG and WebP that say that they are generated, and payloads for e-ink.
//!
//! Enters: [`Pixels`], what is to be said about them ([`Marking`]). Leaves: bytes, the same for the same pixels on every
//! machine. Never: files, the clock, anything about a picture that its owner turned off.
//!
//! Encoding takes heap in proportion to the pixels, stated at [`scratch_bytes_max`].

pub mod eink;
mod jpeg;
mod marking;
mod png;
mod webp;

pub use marking::{DIGITAL_SOURCE_TYPE, Marking, find_xmp};

/// What a pixel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Red, green, blue, opacity; not premultiplied.
    Rgba,
}

impl Channels {
    /// Bytes of a pixel.
    pub const fn count(self) -> usize {
        match self {
            Channels::Rgb => 3,
            Channels::Rgba => 4,
        }
    }
}

/// A picture in memory, sRGB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    width: u32,
    height: u32,
    channels: Channels,
    bytes: Vec<u8>,
}

/// How a picture is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// Lossless.
    #[default]
    Png,
    /// Small, for photographs; over white where the picture is transparent.
    Jpeg {
        /// 1 to 100.
        quality: u8,
    },
    /// Lossless WebP.
    Webp,
}

/// A picture that cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Bytes and sides disagree.
    #[error(
        "a picture of {width}x{height} needs {expected} bytes of pixels but {actual} were given"
    )]
    Length {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Bytes by the sides.
        expected: u64,
        /// Bytes given.
        actual: usize,
    },
    /// A format with a limit.
    #[error(
        "{format} allows sides of 1 to {max} pixels but the picture has {width}x{height}; choose another format or size"
    )]
    Side {
        /// Name of the format.
        format: &'static str,
        /// Its limit.
        max: u32,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// Not a quality.
    #[error("JPEG quality {quality} is not between 1 and 100")]
    Quality {
        /// As asked.
        quality: u8,
    },
    /// More to say than the format has room for.
    #[error(
        "the picture's description takes {bytes} bytes but JPEG has room for {max}; turn the prompt off or choose PNG"
    )]
    Marking {
        /// Of the XMP packet.
        bytes: usize,
        /// Of one APP1 segment.
        max: usize,
    },
    /// Not a palette.
    #[error(
        "{text:?} is no palette: {problem}; write bw, acep7 or 2 to 16 colours as #rrggbb,#rrggbb"
    )]
    Palette {
        /// As given.
        text: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// An encoder gave up.
    #[error("cannot encode the picture as {format}: {problem}")]
    Encoder {
        /// Name of the format.
        format: &'static str,
        /// What it said.
        problem: String,
    },
}

impl Pixels {
    /// Pixels in rows from the top, each from the left.
    ///
    /// # Errors
    /// [`ImageError::Length`] if `bytes` is not `width * height` pixels.
    pub fn new(
        width: u32,
        height: u32,
        channels: Channels,
        bytes: Vec<u8>,
    ) -> Result<Self, ImageError> {
        let expected = u64::from(width) * u64::from(height) * channels.count() as u64;
        if expected != bytes.len() as u64 {
            return Err(ImageError::Length { width, height, expected, actual: bytes.len() });
        }
        Ok(Pixels { width, height, channels, bytes })
    }

    /// Columns.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// What a pixel holds.
    pub fn channels(&self) -> Channels {
        self.channels
    }

    /// `[height, width, channels]`.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, for reuse.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Red, green and blue of each pixel over white.
    fn over_white(&self) -> impl ExactSizeIterator<Item = [u8; 3]> + '_ {
        self.bytes.chunks_exact(self.channels.count()).map(|pixel| {
            let alpha = pixel.get(3).map_or(255, |&alpha| u32::from(alpha));
            let blend =
                |value: u8| ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
            [blend(pixel[0]), blend(pixel[1]), blend(pixel[2])]
        })
    }

    /// Encodes the picture, with its marking inside.
    ///
    /// # Errors
    /// [`ImageError`] if the format has no room for the picture or its marking.
    pub fn encode(&self, format: Format, marking: &Marking) -> Result<Vec<u8>, ImageError> {
        match format {
            Format::Png => png::encode(self, marking),
            Format::Jpeg { quality } => jpeg::encode(self, quality, marking),
            Format::Webp => webp::encode(self, marking),
        }
    }
}

/// The most heap that encoding a picture takes beside the picture and its file: the encoders' tables and one copy of
/// the pixels.
pub const fn scratch_bytes_max(width: u32, height: u32) -> usize {
    (1 << 20) + 8 * width as usize * height as usize
}

fn check_sides(pixels: &Pixels, format: &'static str, max: u32) -> Result<(), ImageError> {
    let (width, height) = (pixels.width, pixels.height);
    if (1..=max).contains(&width) && (1..=max).contains(&height) {
        return Ok(());
    }
    Err(ImageError::Side { format, max, width, height })
}

#[cfg(test)]
mod tests;
