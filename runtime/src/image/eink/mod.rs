//! Pictures for displays with a handful of colours.
//!
//! Enters: pixels, a [`Palette`], how to dither. Leaves: one palette index a pixel, as PNG or as the raw rows that
//! display controllers take. Never: float arithmetic.

mod dither;
mod palette;

pub use dither::Dither;
pub use palette::Palette;

use super::{Channels, ImageError, Marking, Pixels};

/// A picture whose pixels are places in a palette.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexed {
    width: u32,
    height: u32,
    palette: Palette,
    indices: Vec<u8>,
}

impl Indexed {
    /// The picture in the palette's colours.
    pub fn new(pixels: &Pixels, palette: Palette, dither: Dither) -> Self {
        let indices = dither.apply(pixels, &palette);
        Indexed { width: pixels.width(), height: pixels.height(), palette, indices }
    }

    /// Columns.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// What the indices mean.
    pub fn palette(&self) -> &Palette {
        &self.palette
    }

    /// `[height, width]`.
    pub fn indices(&self) -> &[u8] {
        &self.indices
    }

    /// The picture in ordinary pixels, as a preview.
    pub fn to_pixels(&self) -> Pixels {
        let colours = self.palette.colours();
        let bytes = self.indices.iter().flat_map(|&index| colours[usize::from(index)]).collect();
        Pixels { width: self.width, height: self.height, channels: Channels::Rgb, bytes }
    }

    /// A PNG with this palette.
    ///
    /// # Errors
    /// [`ImageError::Encoder`].
    pub fn encode_png(&self, marking: &Marking) -> Result<Vec<u8>, ImageError> {
        super::png::encode_indexed(self, marking)
    }

    /// Raw rows of 1 bit a pixel, the leftmost in the most significant bit, rows padded to whole bytes. In
    /// [`Palette::black_and_white`], 1 is white. Of a larger palette the low bit of the index is left.
    pub fn to_raw1(&self) -> Vec<u8> {
        self.packed::<1>()
    }

    /// Raw rows of 4 bits a pixel, the left one in the high nibble, rows padded to whole bytes: what 7-colour
    /// (ACeP) controllers take with [`Palette::acep7`].
    pub fn to_raw4(&self) -> Vec<u8> {
        self.packed::<4>()
    }

    pub(super) fn packed<const BITS: usize>(&self) -> Vec<u8> {
        let pixels_per_byte = 8 / BITS;
        self.indices
            .chunks(self.width.max(1) as usize)
            .flat_map(|row| {
                row.chunks(pixels_per_byte).map(|pixels| {
                    pixels.iter().enumerate().fold(0, |byte, (place, &index)| {
                        let low = index & ((1u16 << BITS) - 1) as u8;
                        byte | low << (8 - BITS * (place + 1))
                    })
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: u32, height: u32, value: impl Fn(usize) -> u8) -> Pixels {
        let bytes = (0..(width * height) as usize).flat_map(|i| [value(i); 3]).collect();
        Pixels::new(width, height, Channels::Rgb, bytes).unwrap()
    }

    #[test]
    fn raw_rows_are_packed_from_the_left_and_padded() {
        let picture = grey(10, 2, |i| if i % 3 == 0 { 255 } else { 0 });
        let bw = Indexed::new(&picture, Palette::black_and_white(), Dither::None);
        assert_eq!(bw.to_raw1(), [0b1001_0010, 0b0100_0000, 0b0010_0100, 0b1000_0000]);
        let colours = [[255, 0, 0], [0, 0, 255], [255, 255, 0]].concat();
        let picture = Pixels::new(3, 1, Channels::Rgb, colours).unwrap();
        let acep = Indexed::new(&picture, Palette::acep7(), Dither::None);
        assert_eq!(acep.to_raw4(), [0x43, 0x50]);
    }

    #[test]
    fn dithering_keeps_the_mean_of_a_grey() {
        for level in [40, 128, 200] {
            let picture = grey(64, 64, |_| level);
            for dither in [Dither::FloydSteinberg, Dither::Ordered] {
                let bw = Indexed::new(&picture, Palette::black_and_white(), dither);
                let white = bw.indices().iter().filter(|&&index| index == 1).count();
                let mean = 255.0 * white as f64 / 4096.0;
                assert!((mean - f64::from(level)).abs() < 3.0, "{dither:?} {level}: {mean}");
            }
        }
    }

    #[test]
    fn every_palette_colour_is_left_as_it_is() {
        let palette = Palette::acep7();
        let bytes = palette.colours().concat();
        let picture = Pixels::new(7, 1, Channels::Rgb, bytes).unwrap();
        for dither in [Dither::None, Dither::FloydSteinberg] {
            let indexed = Indexed::new(&picture, palette.clone(), dither);
            assert_eq!(indexed.indices(), [0, 1, 2, 3, 4, 5, 6]);
            assert_eq!(indexed.to_pixels(), picture);
        }
    }

    #[test]
    fn palettes_are_read_or_refused() {
        assert_eq!(Palette::parse("bw").unwrap(), Palette::black_and_white());
        assert_eq!(Palette::parse("acep7").unwrap(), Palette::acep7());
        let own = Palette::parse("#000000, #FFffFF,#c00010").unwrap();
        assert_eq!(own.colours(), [[0; 3], [255; 3], [192, 0, 16]]);
        let many = vec!["#000000"; 17].join(",");
        for wrong in
            ["", "bww", "#000000", "#00000,#ffffff", "#00000g,#ffffff", "#€€,#ffffff", &many]
        {
            assert!(Palette::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn indexed_png_has_the_same_pixels() {
        for (palette, width) in [(Palette::black_and_white(), 9), (Palette::acep7(), 5)] {
            let picture = grey(width, 4, |i| (i * 7) as u8);
            let indexed = Indexed::new(&picture, palette, Dither::FloydSteinberg);
            let file = indexed.encode_png(&Marking::default()).unwrap();
            let mut decoder = png::Decoder::new(std::io::Cursor::new(file));
            decoder.set_transformations(png::Transformations::EXPAND);
            let mut reader = decoder.read_info().unwrap();
            let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
            reader.next_frame(&mut bytes).unwrap();
            assert_eq!(bytes, indexed.to_pixels().bytes());
        }
    }
}
