//! Sizes by number or by name.

use plantain::pipeline::SizeSpec;

/// Names that every pack answers with a size of its own.
pub const PRESETS: [&str; 5] = ["small", "default", "large", "portrait", "landscape"];

/// Reads `WxH` or one of [`PRESETS`].
///
/// # Errors
/// What would be right.
pub fn parse(text: &str, pack: &SizeSpec) -> Result<[u32; 2], String> {
    let numbers = || {
        let (width, height) = text.split_once(['x', 'X'])?;
        Some([width.trim().parse().ok()?, height.trim().parse().ok()?])
    };
    preset(text.trim(), pack)
        .or_else(numbers)
        .ok_or_else(|| format!("write it as 128x128, or as one of {}", PRESETS.join(", ")))
}

fn preset(name: &str, pack: &SizeSpec) -> Option<[u32; 2]> {
    match name {
        "small" => Some(pack.min),
        "default" => Some(pack.default),
        "large" => Some(pack.max.map(|side| side * pack.enlarge.unwrap_or(1))),
        "portrait" => Some(shaped(pack, [3, 4])),
        "landscape" => Some(shaped(pack, [4, 3])),
        _ => None,
    }
}

/// About as many pixels as the default size has, in another shape, as far as the pack goes.
fn shaped(pack: &SizeSpec, [width, height]: [u32; 2]) -> [u32; 2] {
    let pixels = f64::from(pack.default[0]) * f64::from(pack.default[1]);
    let unit = (pixels / f64::from(width * height)).sqrt();
    let multiple = pack.multiple.max(1);
    let side = |share: u32, axis: usize| {
        let steps = (unit * f64::from(share) / f64::from(multiple)).round() as u32;
        (steps * multiple).clamp(pack.min[axis], pack.max[axis])
    };
    [side(width, 0), side(height, 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(min: u32, max: u32) -> SizeSpec {
        SizeSpec {
            latent_channels: 4,
            cell_pixels: 8,
            default: [512, 512],
            min: [min; 2],
            max: [max; 2],
            multiple: 64,
            range: [-1.0, 1.0],
            latent_scale: 1.0,
            latent_shift: 0.0,
            enlarge: None,
        }
    }

    #[test]
    fn names_are_sizes_of_the_pack() {
        let of = |text| parse(text, &pack(256, 1024)).unwrap();
        assert_eq!(of("small"), [256, 256]);
        assert_eq!(of("default"), [512, 512]);
        assert_eq!(of("large"), [1024, 1024]);
        let enlarging = SizeSpec { enlarge: Some(2), ..pack(256, 1024) };
        assert_eq!(parse("large", &enlarging), Ok([2048, 2048]));
        assert_eq!(of("portrait"), [448, 576]);
        assert_eq!(of("landscape"), [576, 448]);
        assert_eq!(of("640 x 384"), [640, 384]);
        assert_eq!(parse("landscape", &pack(512, 512)), Ok([512, 512]));
        assert!(parse("huge", &pack(256, 1024)).unwrap_err().contains("portrait"));
    }
}
