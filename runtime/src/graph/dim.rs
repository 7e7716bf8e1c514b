//! Dimensions that depend on batch, height and width, bound to numbers at plan time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The monomials that a [`Dim`] sums, in the order of its coefficients.
const MONOMIALS: [&str; 8] = ["1", "b", "h", "w", "bh", "bw", "hw", "bhw"];

/// The numbers that a graph's free dimensions stand for.
///
/// `height` and `width` count cells of the network's own image-like input: latent cells for
/// denoiser and decoder, pixels for the refiner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    /// Samples that run together: 2 when guidance needs a second pass.
    pub batch: u32,
    /// Rows of the network's image-like input.
    pub height: u32,
    /// Columns of the network's image-like input.
    pub width: u32,
}

/// A dimension that is multilinear in batch, height and width, divided by a whole number:
/// `(c0 + c1 b + c2 h + c3 w + c4 bh + c5 bw + c6 hw + c7 bhw) / divisor`.
///
/// In JSON a fixed dimension is a number; any other is an object of its non-zero coefficients
/// by monomial, for example `{"hw": 1, "div": 4}` for the tokens of a level at half size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "DimJson", into = "DimJson")]
pub struct Dim {
    coefficients: [i64; 8],
    divisor: u32,
}

/// Why a dimension has no value under a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DimError {
    /// The size is not a multiple of what the network needs.
    #[error(
        "a dimension of {numerator} cells does not divide by {divisor}; choose a size that is a multiple of what the pack states"
    )]
    NotDivisible {
        /// The dimension before the division.
        numerator: i64,
        /// What it must divide by.
        divisor: u32,
    },
    /// The dimension is below one (or zero, for an index) or above [`Dim::MAX`].
    #[error("a dimension of {value} is outside {least}..={max}; choose another size", max = Dim::MAX)]
    OutOfRange {
        /// The least that is allowed.
        least: i64,
        /// The value that was computed.
        value: i64,
    },
}

impl Dim {
    /// The largest dimension that any graph may have.
    pub const MAX: i64 = 1 << 28;

    /// A dimension that never changes.
    pub const fn fixed(value: usize) -> Self {
        Dim { coefficients: [value as i64, 0, 0, 0, 0, 0, 0, 0], divisor: 1 }
    }

    /// The batch dimension.
    pub const fn batch() -> Self {
        Dim { coefficients: [0, 1, 0, 0, 0, 0, 0, 0], divisor: 1 }
    }

    /// A dimension from its coefficients in the order `1, b, h, w, bh, bw, hw, bhw`.
    ///
    /// # Errors
    /// `None` if `divisor` is zero.
    pub fn from_coefficients(coefficients: [i64; 8], divisor: u32) -> Option<Self> {
        if divisor == 0 {
            return None;
        }
        let common = coefficients.iter().fold(u64::from(divisor), |a, &c| gcd(a, c.unsigned_abs()));
        // It divides the divisor, so that it fits.
        Some(Dim {
            coefficients: coefficients.map(|c| c / common as i64),
            divisor: divisor / common as u32,
        })
    }

    /// Fits a dimension to its values at the eight corners of a box of bindings.
    ///
    /// `value(b, h, w)` is asked at `b` in `{1, 2}` and `h`, `w` in `{unit, 2 * unit}`, and once
    /// more at `(3, 3 * unit, 4 * unit)` to check that the dimension is multilinear.
    ///
    /// # Errors
    /// `None` if it is not.
    pub fn fit(unit: u32, mut value: impl FnMut(Binding) -> Option<i64>) -> Option<Self> {
        let u = i64::from(unit);
        let mut corner = [0i64; 8];
        for (index, slot) in corner.iter_mut().enumerate() {
            let (b, h, w) =
                (1 + (index & 1) as u32, 1 + (index >> 1 & 1) as u32, 1 + (index >> 2 & 1) as u32);
            *slot = value(Binding { batch: b, height: h * unit, width: w * unit })?;
        }
        // Finite differences along one axis after another turn corner values into coefficients
        // of products of (b - 1), (h - u)/u, (w - u)/u; the second sweep moves the origin to 0.
        for axis in 0..3 {
            for index in 0..8 {
                if index >> axis & 1 == 1 {
                    corner[index] -= corner[index ^ (1 << axis)];
                }
            }
        }
        for axis in 0..3 {
            for index in 0..8 {
                if index >> axis & 1 == 0 {
                    corner[index] -= corner[index ^ (1 << axis)];
                }
            }
        }
        // Bits are b, h, w; each of h and w still counts units.
        let order = [0usize, 1, 2, 4, 3, 5, 6, 7];
        let mut coefficients = [0i64; 8];
        for (slot, &index) in coefficients.iter_mut().zip(&order) {
            let units = (index >> 1 & 1) + (index >> 2 & 1);
            *slot = corner[index].checked_mul(u.pow(2 - units as u32))?;
        }
        let dim = Dim::from_coefficients(coefficients, unit.checked_mul(unit)?)?;
        let probe = Binding { batch: 3, height: 3 * unit, width: 4 * unit };
        let expected = value(probe)?;
        (dim.bind(probe).ok()? as i64 == expected).then_some(dim)
    }

    /// The value under a binding.
    ///
    /// # Errors
    /// [`DimError`] if the division leaves a rest or the value is outside `1..=Dim::MAX`.
    pub fn bind(&self, binding: Binding) -> Result<usize, DimError> {
        self.bind_from(1, binding)
    }

    /// The value under a binding, as an index: where a slice starts.
    ///
    /// # Errors
    /// [`DimError`] if the division leaves a rest or the value is outside `0..=Dim::MAX`.
    pub fn bind_index(&self, binding: Binding) -> Result<usize, DimError> {
        self.bind_from(0, binding)
    }

    fn bind_from(&self, least: i64, binding: Binding) -> Result<usize, DimError> {
        let (b, h, w) =
            (i128::from(binding.batch), i128::from(binding.height), i128::from(binding.width));
        let monomials = [1, b, h, w, b * h, b * w, h * w, b * h * w];
        let sum = monomials
            .iter()
            .zip(&self.coefficients)
            .try_fold(0i128, |sum, (m, &c)| m.checked_mul(i128::from(c))?.checked_add(sum))
            .ok_or(DimError::OutOfRange { least, value: i64::MAX })?;
        let clamped = sum.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        let divisor = i128::from(self.divisor);
        if sum % divisor != 0 {
            return Err(DimError::NotDivisible { numerator: clamped, divisor: self.divisor });
        }
        let value = (sum / divisor).clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        if !(least..=Dim::MAX).contains(&value) {
            return Err(DimError::OutOfRange { least, value });
        }
        Ok(value as usize)
    }

    /// The value, if it is the same under every binding.
    pub fn as_fixed(&self) -> Option<usize> {
        (self.divisor == 1 && self.coefficients[1..].iter().all(|&c| c == 0))
            .then_some(self.coefficients[0])
            .and_then(|value| usize::try_from(value).ok())
    }
}

/// As a person writes it: `77`, `b`, `hw/4`, `(3 + 2h)/8`.
impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let terms: Vec<String> = MONOMIALS
            .iter()
            .zip(self.coefficients)
            .filter(|&(_, c)| c != 0)
            .map(|(&name, c)| match (name, c) {
                ("1", c) => c.to_string(),
                (name, 1) => name.to_owned(),
                (name, c) => format!("{c}{name}"),
            })
            .collect();
        match (terms.len(), self.divisor) {
            (0, _) => f.write_str("0"),
            (_, 1) => f.write_str(&terms.join(" + ")),
            (1, divisor) => write!(f, "{}/{divisor}", terms[0]),
            (_, divisor) => write!(f, "({})/{divisor}", terms.join(" + ")),
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum DimJson {
    Fixed(u32),
    Terms(BTreeMap<String, i64>),
}

impl From<Dim> for DimJson {
    fn from(dim: Dim) -> Self {
        if let Some(value) = dim.as_fixed().and_then(|value| u32::try_from(value).ok()) {
            return DimJson::Fixed(value);
        }
        let mut terms: BTreeMap<String, i64> = MONOMIALS
            .iter()
            .zip(dim.coefficients)
            .filter(|&(_, c)| c != 0)
            .map(|(&name, c)| (name.to_owned(), c))
            .collect();
        if dim.divisor != 1 {
            terms.insert("div".to_owned(), i64::from(dim.divisor));
        }
        DimJson::Terms(terms)
    }
}

impl TryFrom<DimJson> for Dim {
    type Error = String;

    fn try_from(json: DimJson) -> Result<Self, String> {
        match json {
            DimJson::Fixed(value) => Ok(Dim::fixed(value as usize)),
            DimJson::Terms(terms) => {
                let mut coefficients = [0; 8];
                let mut divisor = 1;
                for (name, &value) in &terms {
                    if name == "div" {
                        divisor = u32::try_from(value).map_err(|_| {
                            format!("a dimension's divisor is {value}; it must be 1 or more")
                        })?;
                    } else {
                        let slot = MONOMIALS.iter().position(|m| m == name).ok_or_else(|| {
                            format!("a dimension has a term {name:?}; known are {MONOMIALS:?} and \"div\"")
                        })?;
                        coefficients[slot] = value;
                    }
                }
                Dim::from_coefficients(coefficients, divisor)
                    .ok_or_else(|| "a dimension's divisor is 0; it must be 1 or more".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_tokens_of_a_level_at_quarter_size() {
        let tokens =
            Dim::fit(8, |s| Some(i64::from(s.batch * (s.height / 4) * (s.width / 4)))).unwrap();
        assert_eq!(tokens.bind(Binding { batch: 2, height: 64, width: 96 }), Ok(2 * 16 * 24));
        assert_eq!(serde_json::to_string(&tokens).unwrap(), r#"{"bhw":1,"div":16}"#);
        assert_eq!(serde_json::from_str::<Dim>(r#"{"bhw":1,"div":16}"#).unwrap(), tokens);
        let odd = tokens.bind(Binding { batch: 1, height: 5, width: 5 });
        assert_eq!(odd, Err(DimError::NotDivisible { numerator: 25, divisor: 16 }));
    }

    #[test]
    fn fits_mixed_terms_and_refuses_what_is_not_multilinear() {
        let mixed =
            Dim::fit(8, |s| Some(3 + 2 * i64::from(s.height) + i64::from(s.batch * s.width) / 8))
                .unwrap();
        assert_eq!(mixed.bind(Binding { batch: 2, height: 10, width: 16 }), Ok(3 + 20 + 4));
        assert_eq!(Dim::fit(8, |s| Some(i64::from(s.height * s.height))), None);
        assert_eq!(Dim::fit(8, |_| Some(77)), Some(Dim::fixed(77)));
        let shown = [mixed, Dim::fixed(77), Dim::batch()].map(|dim| dim.to_string());
        assert_eq!(shown, ["(24 + 16h + bw)/8", "77", "b"]);
    }

    #[test]
    fn refuses_zero_and_huge() {
        let wide = Dim::from_coefficients([0, 0, 0, 0, 0, 0, 0, i64::MAX], 1).unwrap();
        let binding = Binding { batch: u32::MAX, height: u32::MAX, width: u32::MAX };
        assert_eq!(wide.bind(binding), Err(DimError::OutOfRange { least: 1, value: i64::MAX }));
        assert_eq!(Dim::fixed(0).bind(binding), Err(DimError::OutOfRange { least: 1, value: 0 }));
        assert_eq!(Dim::fixed(0).bind_index(binding), Ok(0));
        let lowest = Dim::from_coefficients([i64::MIN; 8], u32::MAX).unwrap();
        assert!(lowest.bind_index(binding).is_err());
        assert!(serde_json::from_str::<Dim>(r#"{"div":0}"#).is_err());
        assert!(serde_json::from_str::<Dim>(r#"{"q":1}"#).is_err());
    }
}
