//! Bytes in profiles: `"512M"` is 512 MiB.

use serde::de::{Deserialize, Deserializer, Error};

/// Reads `"512M"` or `"4G"`; units are powers of 1024.
pub(crate) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| {
        D::Error::custom(format!(
            "{text:?} is not a size; write a whole number and M or G, as in \"512M\""
        ))
    })
}

fn parse(text: &str) -> Option<u64> {
    let (number, shift) = match text.strip_suffix('M') {
        Some(number) => (number, 20),
        None => (text.strip_suffix('G')?, 30),
    };
    let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = plain.then(|| number.parse().ok())??;
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units() {
        assert_eq!(parse("512M"), Some(512 << 20));
        assert_eq!(parse("4G"), Some(4 << 30));
        for bad in ["", "M", "+4M", "-1M", "1.5G", "512", "64K", "99999999999999G"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
