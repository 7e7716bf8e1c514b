use std::process::{Command, Stdio};

use super::*;

fn picture(channels: Channels) -> Pixels {
    let (width, height) = (37, 23);
    let value = |y: u32, x: u32, c: u32| (x * 7 + y * 5 + c * 60) as u8 ^ ((x * y) as u8 & 3);
    let bytes = (0..height)
        .flat_map(|y| (0..width).map(move |x| (y, x)))
        .flat_map(|(y, x)| (0..channels.count() as u32).map(move |c| value(y, x, c)))
        .collect();
    Pixels::new(width, height, channels, bytes).unwrap()
}

fn marking() -> Marking {
    Marking {
        prompt: Some("ein \"roter\" <Apfel> & 林檎\n\u{1}".to_owned()),
        negative: Some("blur".to_owned()),
        style: Some("3d render".to_owned()),
        seed: u64::MAX,
        steps: 4,
        step_cache: None,
        guidance_scale: 1.5,
        size: [37, 23],
        pack_sha256: "0123456789abcdef0123456789abcdef".to_owned(),
    }
}

const FORMATS: [Format; 3] = [Format::Png, Format::Jpeg { quality: 90 }, Format::Webp];

#[test]
fn every_format_carries_its_mark() {
    for channels in [Channels::Rgb, Channels::Rgba] {
        for format in FORMATS {
            let file = picture(channels).encode(format, &marking()).unwrap();
            let xmp = find_xmp(&file).unwrap();
            assert_eq!(xmp, marking().xmp());
            assert!(xmp.contains(DIGITAL_SOURCE_TYPE) && xmp.contains("trainedAlgorithmicMedia"));
            let prompt = "\"ein &quot;roter&quot; &lt;Apfel&gt; &amp; 林檎&#10;\u{fffd}\"";
            assert!(xmp.contains(prompt), "{xmp}");
            for length in 0..file.len() {
                let _ = find_xmp(&file[..length]);
            }
        }
    }
}

#[test]
fn the_prompt_can_be_kept_out() {
    for format in FORMATS {
        let marking = marking().without_prompt();
        let file = picture(Channels::Rgb).encode(format, &marking).unwrap();
        let text = String::from_utf8_lossy(&file);
        assert!(!text.contains("Apfel") && !text.contains("blur"));
        assert!(text.contains("trainedAlgorithmicMedia"));
    }
}

#[test]
fn lossless_formats_keep_every_pixel() {
    for channels in [Channels::Rgb, Channels::Rgba] {
        let picture = picture(channels);
        let file = picture.encode(Format::Png, &marking()).unwrap();
        let mut reader = ::png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut bytes).unwrap();
        assert_eq!(bytes, picture.bytes());
        let text = &reader.info().utf8_text;
        let parameters = text.iter().find(|chunk| chunk.keyword == "parameters").unwrap();
        assert!(parameters.get_text().unwrap().contains("Seed: 18446744073709551615"));

        let file = picture.encode(Format::Webp, &marking()).unwrap();
        let mut decoder = image_webp::WebPDecoder::new(std::io::Cursor::new(file)).unwrap();
        let mut bytes = vec![0; decoder.output_buffer_size().unwrap()];
        decoder.read_image(&mut bytes).unwrap();
        assert_eq!(bytes, picture.bytes());
    }
}

/// A new version of plantain or of an encoder changes them; nothing else may.
#[test]
fn the_bytes_are_golden() {
    use sha2::{Digest, Sha256};
    let hashes = FORMATS.map(|format| {
        let mut marking = marking();
        marking.prompt = Some("a red apple".to_owned());
        let file = picture(Channels::Rgb).encode(format, &marking).unwrap();
        let hash = Sha256::digest(&file);
        hash[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    });
    assert_eq!(hashes, ["aaf911e90db7c0f2", "f1d696ab6dc4450d", "3f4828b631642f9c"]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let bytes = vec![0; 12];
    assert!(matches!(
        Pixels::new(2, 3, Channels::Rgb, bytes),
        Err(ImageError::Length { expected: 18, actual: 12, .. })
    ));
    let wide = Pixels::new(70_000, 1, Channels::Rgb, vec![0; 210_000]).unwrap();
    let jpeg = Format::Jpeg { quality: 90 };
    assert!(matches!(wide.encode(jpeg, &marking()), Err(ImageError::Side { .. })));
    assert!(matches!(wide.encode(Format::Webp, &marking()), Err(ImageError::Side { .. })));
    let none = Pixels::new(0, 0, Channels::Rgb, Vec::new()).unwrap();
    for format in FORMATS {
        assert!(matches!(none.encode(format, &marking()), Err(ImageError::Side { .. })));
    }
    let picture = picture(Channels::Rgb);
    let zero = Format::Jpeg { quality: 0 };
    assert!(matches!(picture.encode(zero, &marking()), Err(ImageError::Quality { quality: 0 })));
    let long = Marking { style: Some("\"".repeat(20_000)), ..marking() };
    assert!(matches!(picture.encode(jpeg, &long), Err(ImageError::Marking { .. })));
}

#[test]
fn jpeg_shows_transparency_as_white() {
    let clear = Pixels::new(8, 8, Channels::Rgba, [9, 9, 9, 0].repeat(64)).unwrap();
    assert!(clear.over_white().all(|pixel| pixel == [255; 3]));
    let half = Pixels::new(1, 1, Channels::Rgba, vec![0, 100, 255, 128]).unwrap();
    assert_eq!(half.over_white().next(), Some([127, 177, 255]));
}

/// A second opinion, where exiftool is installed.
#[test]
fn exiftool_reads_the_mark() {
    let probe = Command::new("exiftool").arg("-ver").stdout(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("exiftool is not installed; our own reader has checked the same files");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (format, extension) in FORMATS.into_iter().zip(["png", "jpg", "webp"]) {
        let path = folder.path().join(format!("picture.{extension}"));
        std::fs::write(&path, picture(Channels::Rgb).encode(format, &marking()).unwrap()).unwrap();
        let read =
            Command::new("exiftool").args(["-XMP:all", "-validate", "-a"]).arg(&path).output();
        let read = String::from_utf8(read.unwrap().stdout).unwrap();
        assert!(
            read.contains("trainedAlgorithmicMedia") || read.contains("Trained Algorithmic"),
            "{read}"
        );
        assert!(read.contains("Apfel") && read.contains("18446744073709551615"), "{read}");
        assert!(!read.contains("Warning  "), "{read}");
    }
}
