//! What a picture's file says about it: that it is generated, and how.

use std::fmt::Write;

use super::jpeg::XMP_PREFIX;

/// IPTC's name for what a trained model made; EU AI Act, article 50(2), asks for such a mark.
pub const DIGITAL_SOURCE_TYPE: &str =
    "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";

/// How a picture was made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marking {
    /// The user's words; `None` where the operator keeps them out of files.
    pub prompt: Option<String>,
    /// What was to be kept out; `None` as above, or if there was nothing.
    pub negative: Option<String>,
    /// Name of the style.
    pub style: Option<String>,
    /// Seed of this picture.
    pub seed: u64,
    /// Denoising steps.
    pub steps: u32,
    /// The denoiser ran at every so many of them only; `None` if at all.
    pub step_cache: Option<u32>,
    /// Guidance scale.
    pub guidance_scale: f32,
    /// Pixels: width, height.
    pub size: [u32; 2],
    /// The pack's hash in hexadecimal.
    pub pack_sha256: String,
}

impl Marking {
    /// The same without the user's words.
    pub fn without_prompt(mut self) -> Self {
        self.prompt = None;
        self.negative = None;
        self
    }

    /// An XMP packet.
    ///
    /// Standard properties are IPTC's (`DigitalSourceType`, `AISystemUsed`, `AISystemVersionUsed`,
    /// `AIPromptInformation`) and `xmp:CreatorTool`; numbers stand under our own namespace.
    pub fn xmp(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let mut xmp =
            String::from("<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n");
        xmp.push_str(concat!(
            "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\n",
            " <rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\n",
            "  <rdf:Description rdf:about=\"\"\n",
            "    xmlns:Iptc4xmpExt=\"http://iptc.org/std/Iptc4xmpExt/2008-02-29/\"\n",
            "    xmlns:xmp=\"http://ns.adobe.com/xap/1.0/\"\n",
            "    xmlns:plantain=\"https://github.com/plantain-image/plantain/ns/1.0/\"",
        ));
        let mut property = |name: &str, value: &str| {
            let _ = write!(xmp, "\n    {name}=\"{}\"", escape(value));
        };
        property("Iptc4xmpExt:DigitalSourceType", DIGITAL_SOURCE_TYPE);
        property("Iptc4xmpExt:AISystemUsed", "plantain");
        property("Iptc4xmpExt:AISystemVersionUsed", version);
        if let Some(prompt) = &self.prompt {
            property("Iptc4xmpExt:AIPromptInformation", prompt);
        }
        property("xmp:CreatorTool", &format!("plantain {version}"));
        if let Some(negative) = &self.negative {
            property("plantain:NegativePrompt", negative);
        }
        if let Some(style) = &self.style {
            property("plantain:Style", style);
        }
        property("plantain:Seed", &self.seed.to_string());
        property("plantain:Steps", &self.steps.to_string());
        if let Some(every) = self.step_cache {
            property("plantain:StepCache", &every.to_string());
        }
        property("plantain:GuidanceScale", &self.guidance_scale.to_string());
        property("plantain:PackSha256", &self.pack_sha256);
        xmp.push_str("/>\n </rdf:RDF>\n</x:xmpmeta>\n<?xpacket end=\"r\"?>");
        xmp
    }

    /// The line format that image galleries read from PNG's `parameters`.
    pub fn parameters(&self) -> String {
        let mut text = String::new();
        if let Some(prompt) = &self.prompt {
            let _ = writeln!(text, "{prompt}");
        }
        if let Some(negative) = &self.negative {
            let _ = writeln!(text, "Negative prompt: {negative}");
        }
        let [width, height] = self.size;
        let _ = write!(
            text,
            "Steps: {}, CFG scale: {}, Seed: {}, Size: {width}x{height}, ",
            self.steps, self.guidance_scale, self.seed
        );
        if let Some(style) = &self.style {
            let _ = write!(text, "Style: {style}, ");
        }
        if let Some(every) = self.step_cache {
            let _ = write!(text, "Step cache: {every}, ");
        }
        let hash = self.pack_sha256.get(..16).unwrap_or(&self.pack_sha256);
        let _ = write!(text, "Model hash: {hash}, Version: plantain {}", env!("CARGO_PKG_VERSION"));
        // PNG's text chunks end at NUL and forbid most control characters.
        text.replace(|c: char| c.is_control() && c != '\n', " ")
    }
}

/// Text as an XML attribute; what XML cannot hold becomes U+FFFD.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(c),
        }
        out
    })
}

/// The XMP packet of a PNG, JPEG or WebP file, if it has one.
pub fn find_xmp(file: &[u8]) -> Option<&str> {
    let packet = if file.starts_with(b"\x89PNG\r\n\x1a\n") {
        find_chunk(&file[8..], Chunks::Png, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0")
    } else if file.starts_with(b"RIFF") && file.get(8..12) == Some(b"WEBP") {
        find_chunk(&file[12..], Chunks::Riff, b"XMP ", b"")
    } else if file.starts_with(b"\xff\xd8") {
        find_segment(&file[2..])
    } else {
        None
    };
    packet.and_then(|packet| std::str::from_utf8(packet).ok())
}

/// How a file of chunks frames them.
#[derive(Clone, Copy)]
enum Chunks {
    /// Length, name, body, checksum; big-endian.
    Png,
    /// Name, length, body padded to an even length; little-endian.
    Riff,
}

fn find_chunk<'f>(
    mut rest: &'f [u8],
    chunks: Chunks,
    name: &[u8; 4],
    prefix: &[u8],
) -> Option<&'f [u8]> {
    loop {
        let (head, after) = rest.split_first_chunk::<8>()?;
        let (first, second) = (head.first_chunk::<4>()?, head.last_chunk::<4>()?);
        let (found, length) = match chunks {
            Chunks::Png => (second, u32::from_be_bytes(*first) as usize),
            Chunks::Riff => (first, u32::from_le_bytes(*second) as usize),
        };
        let body = after.get(..length)?;
        if found == name
            && let Some(packet) = body.strip_prefix(prefix)
        {
            return Some(packet);
        }
        rest = match chunks {
            Chunks::Png => after.get(length + 4..)?,
            Chunks::Riff => after.get(length.next_multiple_of(2)..)?,
        };
    }
}

/// Looks through JPEG's segments up to the scan.
fn find_segment(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let &[0xFF, marker, high, low, ref after @ ..] = rest else { return None };
        if marker == 0xDA {
            return None;
        }
        let length = usize::from(u16::from_be_bytes([high, low])).checked_sub(2)?;
        let body = after.get(..length)?;
        if marker == 0xE1
            && let Some(packet) = body.strip_prefix(XMP_PREFIX)
        {
            return Some(packet);
        }
        rest = &after[length..];
    }
}
