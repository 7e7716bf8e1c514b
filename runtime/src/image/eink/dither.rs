//! Few colours that look like many from afar.

use super::super::Pixels;
use super::Palette;

/// How colours that the palette lacks are mixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dither {
    /// Not: every pixel takes the nearest colour.
    None,
    /// Each pixel's error goes to its neighbours (Floyd and Steinberg 1976), row by row from the left.
    #[default]
    FloydSteinberg,
    /// A fixed 8x8 pattern of thresholds (Bayer 1973): the same pixel always looks the same.
    Ordered,
}

/// Bayer's 8x8 matrix, 0 to 63.
const BAYER: [[i32; 8]; 8] = [
    [0, 32, 8, 40, 2, 34, 10, 42],
    [48, 16, 56, 24, 50, 18, 58, 26],
    [12, 44, 4, 36, 14, 46, 6, 38],
    [60, 28, 52, 20, 62, 30, 54, 22],
    [3, 35, 11, 43, 1, 33, 9, 41],
    [51, 19, 59, 27, 49, 17, 57, 25],
    [15, 47, 7, 39, 13, 45, 5, 37],
    [63, 31, 55, 23, 61, 29, 53, 21],
];

impl Dither {
    /// The palette index of each pixel, over white.
    pub(super) fn apply(self, pixels: &Pixels, palette: &Palette) -> Vec<u8> {
        let width = pixels.width().max(1) as usize;
        match self {
            Dither::FloydSteinberg => floyd_steinberg(pixels, palette, width),
            Dither::None => {
                pixels.over_white().map(|c| palette.nearest(c.map(i32::from))).collect()
            }
            Dither::Ordered => {
                let gap = palette.widest_gap();
                let pixel = |(place, colour): (usize, [u8; 3])| {
                    let threshold = BAYER[place / width % 8][place % width % 8];
                    let shift = (2 * threshold - 63) * gap / 128;
                    palette.nearest(colour.map(|value| i32::from(value) + shift))
                };
                pixels.over_white().enumerate().map(pixel).collect()
            }
        }
    }
}

fn floyd_steinberg(pixels: &Pixels, palette: &Palette, width: usize) -> Vec<u8> {
    // Errors in sixteenths; one cell more at either side takes what falls off the row.
    let mut here = vec![[0i32; 3]; width + 2];
    let mut below = here.clone();
    let mut indices = Vec::with_capacity(pixels.over_white().len());
    for (place, colour) in pixels.over_white().enumerate() {
        let x = place % width + 1;
        // Errors of a palette that spans little would grow without bound.
        let wanted: [i32; 3] = std::array::from_fn(|i| {
            (i32::from(colour[i]) + (here[x][i] + 8).div_euclid(16)).clamp(-255, 510)
        });
        let index = palette.nearest(wanted);
        let taken = palette.colours()[usize::from(index)];
        for i in 0..3 {
            let error = wanted[i] - i32::from(taken[i]);
            here[x + 1][i] += 7 * error;
            below[x - 1][i] += 3 * error;
            below[x][i] += 5 * error;
            below[x + 1][i] += error;
        }
        indices.push(index);
        if x == width {
            here.copy_from_slice(&below);
            below.fill([0; 3]);
        }
    }
    indices
}
