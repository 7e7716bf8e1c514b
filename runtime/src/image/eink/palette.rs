//! The colours that a display has.

use super::super::ImageError;

/// 2 to 16 colours; a pixel holds the place of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Palette(Vec<[u8; 3]>);

impl Palette {
    /// Black is 0, white is 1.
    pub fn black_and_white() -> Self {
        Palette(vec![[0; 3], [255; 3]])
    }

    /// The 7 colours of ACeP panels in their controllers' order: black, white, green, blue, red, yellow, orange.
    ///
    /// The values are the nominal ones, as in Waveshare's drivers; a panel's real colours are duller, and a custom
    /// palette may name them.
    pub fn acep7() -> Self {
        Palette(vec![
            [0, 0, 0],
            [255, 255, 255],
            [0, 255, 0],
            [0, 0, 255],
            [255, 0, 0],
            [255, 255, 0],
            [255, 128, 0],
        ])
    }

    /// `bw`, `acep7`, or colours as `#rrggbb` with commas between.
    ///
    /// # Errors
    /// [`ImageError::Palette`].
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let wrong = |problem| ImageError::Palette { text: text.to_owned(), problem };
        match text.trim() {
            "bw" => return Ok(Self::black_and_white()),
            "acep7" => return Ok(Self::acep7()),
            _ => {}
        }
        let colours: Option<Vec<_>> = text.split(',').map(|colour| hex(colour.trim())).collect();
        let colours = colours.ok_or_else(|| wrong("a colour is not #rrggbb"))?;
        if !(2..=16).contains(&colours.len()) {
            return Err(wrong("it has not 2 to 16 colours"));
        }
        Ok(Palette(colours))
    }

    /// The colours: red, green, blue.
    pub fn colours(&self) -> &[[u8; 3]] {
        &self.0
    }

    /// The place of the nearest colour; of equals the first. Values may lie outside `0..=255`.
    pub(super) fn nearest(&self, rgb: [i32; 3]) -> u8 {
        // Weights by how well eyes tell the primaries apart (CompuPhase's "low-cost" metric, averaged).
        const WEIGHTS: [i64; 3] = [3, 4, 2];
        let distance = |colour: &[u8; 3]| -> i64 {
            (0..3).map(|i| WEIGHTS[i] * i64::from(rgb[i] - i32::from(colour[i])).pow(2)).sum()
        };
        let nearest = self.0.iter().enumerate().min_by_key(|(_, colour)| distance(colour));
        nearest.map_or(0, |(index, _)| index as u8)
    }

    /// The widest gap between neighbouring values of one channel.
    pub(super) fn widest_gap(&self) -> i32 {
        (0..3)
            .map(|channel| {
                let mut values: Vec<i32> = self.0.iter().map(|c| i32::from(c[channel])).collect();
                values.sort_unstable();
                values.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
            })
            .max()
            .unwrap_or(0)
    }
}

fn hex(text: &str) -> Option<[u8; 3]> {
    let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6)?.as_bytes();
    let mut rgb = [0; 3];
    for (value, pair) in rgb.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *value = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(rgb)
}
