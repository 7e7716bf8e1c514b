//! Bytes as people write them: `64M` is 64 MiB.

use std::fmt;

/// Why a size in text is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a size in bytes; write a whole number with K, M or G behind it, such as 64M (64 MiB)"
)]
pub struct ParseBytesError {
    text: String,
}

/// Reads `67108864`, `65536K`, `64M`, `64MiB` or `1G`; units are powers of 1024.
///
/// # Errors
/// [`ParseBytesError`] if the text is anything else or does not fit 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64, ParseBytesError> {
    let error = || ParseBytesError { text: text.chars().take(40).collect() };
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(error()),
    };
    let number: u64 = number.parse().map_err(|_| error())?;
    number.checked_mul(1 << shift).ok_or_else(error)
}

/// Shows bytes in MiB with two decimals, rounded up, so that a stated need always suffices; small sizes in KiB or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1024 => return write!(f, "{} B", self.0),
            1024..1_048_576 => (1u64 << 10, "KiB"),
            _ => (1u64 << 20, "MiB"),
        };
        let hundredths = (u128::from(self.0) * 100).div_ceil(u128::from(unit));
        write!(f, "{}.{:02} {name}", hundredths / 100, hundredths % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units_and_refuses_the_rest() {
        assert_eq!(parse_bytes("64M"), Ok(64 << 20));
        assert_eq!(parse_bytes(" 64 MiB "), Ok(64 << 20));
        assert_eq!(parse_bytes("1g"), Ok(1 << 30));
        assert_eq!(parse_bytes("123"), Ok(123));
        for bad in
            ["", "M", "-1M", "1.5G", "64MB!", "99999999999999999999", "18446744073709551615G"]
        {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shows_what_suffices() {
        assert_eq!(Bytes(64 << 20).to_string(), "64.00 MiB");
        assert_eq!(Bytes((64 << 20) + 1).to_string(), "64.01 MiB");
        assert_eq!(Bytes(1536).to_string(), "1.50 KiB");
        assert_eq!(Bytes(7).to_string(), "7 B");
    }
}
