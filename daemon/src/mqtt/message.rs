//! Payloads, version 1. The JSON Schema files in `daemon/schemas/` describe the same; tests hold them together.

use plantain::image::eink::Palette;
use plantain::pipeline::SizeSpec;
use serde::{Deserialize, Serialize};

use crate::encode::DitherChoice;
use crate::job::{Drawing, Format};
use crate::serve::status::Model;
use crate::size;

/// What stands in `prompt` messages: JSON with these keys, or plain text, which is `{"prompt": TEXT}`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PromptMessage {
    /// What to draw.
    pub prompt: String,
    /// The sender's name for this job; repeating it repeats the answer, not the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The sender's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Same pack, prompt and seed: same bytes. Drawn at random if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Denoising steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Guidance scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f32>,
    /// What to keep out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative: Option<String>,
    /// A style of the pack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub style: Option<String>,
    /// `"WxH"`, `[w, h]`, or one of [`size::PRESETS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<SizeMessage>,
    /// Pictures, with seeds that count up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Encoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Colours of an e-ink panel: `bw`, `acep7`, or 2 to 16 as `#rrggbb,#rrggbb`; empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub palette: Option<String>,
    /// How colours between those of the palette are approached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dither: Option<DitherChoice>,
    /// Higher goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i8>,
    /// Send the picture as it stands with each step's progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<bool>,
}

/// A size in pixels.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum SizeMessage {
    /// `"128x96"`, or a name such as `"landscape"`
    Text(String),
    /// `[128, 96]`
    Pair([u32; 2]),
}

/// Bounds and defaults that a prompt is checked against and filled in from.
#[derive(Clone, Debug)]
pub struct PromptRules {
    /// Longest prompt in bytes.
    pub prompt_bytes_max: usize,
    /// Most pixels of one picture.
    pub pixels_max: u64,
    /// Most steps.
    pub steps_max: u32,
    /// Most pictures.
    pub count_max: u32,
    /// If the prompt names none.
    pub format: Format,
    /// If the prompt names none.
    pub style: Option<String>,
    /// If the prompt names none.
    pub steps: Option<u32>,
    /// If the prompt names none.
    pub guidance: Option<f32>,
    /// If the prompt names none.
    pub size: Option<[u32; 2]>,
    /// If the prompt names none; empty: all colours.
    pub palette: String,
    /// If the prompt names none.
    pub dither: DitherChoice,
    /// If the prompt does not say.
    pub preview: bool,
    /// The pack's sizes.
    pub sizes: SizeSpec,
}

/// Longest `id`, `client` or style in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Reads a prompt message: JSON if it starts with `{`, else plain text.
///
/// # Errors
/// One sentence for the sender.
pub fn parse_prompt(payload: &[u8], rules: &PromptRules) -> Result<PromptMessage, String> {
    // Room for the JSON around the longest prompt, each of its bytes escaped.
    let payload_bytes_max = 6 * rules.prompt_bytes_max * 2 + 4096;
    if payload.len() > payload_bytes_max {
        return Err(format!(
            "the message has {} bytes but at most {payload_bytes_max} are read; shorten it",
            payload.len()
        ));
    }
    let text = std::str::from_utf8(payload).map_err(|error| {
        format!(
            "the message is not UTF-8 (byte {}); send plain text or JSON in UTF-8",
            error.valid_up_to()
        )
    })?;
    let trimmed = text.trim();
    let message = if trimmed.starts_with('{') {
        serde_json::from_str(trimmed)
            .map_err(|error| format!("the message is not a prompt: {error}"))?
    } else {
        PromptMessage { prompt: trimmed.to_owned(), ..PromptMessage::default() }
    };
    check_text("prompt", &message.prompt, 1, rules.prompt_bytes_max)?;
    for (key, value, max) in [
        ("negative", &message.negative, rules.prompt_bytes_max),
        ("id", &message.id, NAME_BYTES_MAX),
        ("client", &message.client, NAME_BYTES_MAX),
        ("style", &message.style, NAME_BYTES_MAX),
        ("palette", &message.palette, NAME_BYTES_MAX),
    ] {
        if let Some(text) = value {
            check_text(key, text, usize::from(key == "id"), max)?;
        }
    }
    Ok(message)
}

fn check_text(key: &str, text: &str, bytes_min: usize, bytes_max: usize) -> Result<(), String> {
    if text.trim().len() < bytes_min {
        return Err(format!("{key} is empty; say what to draw"));
    }
    if text.len() > bytes_max {
        return Err(format!(
            "{key} has {} bytes but at most {bytes_max} are allowed; shorten it",
            text.len()
        ));
    }
    Ok(())
}

impl PromptMessage {
    /// What to draw, with every default filled in.
    ///
    /// # Errors
    /// One sentence for the sender: what is out of bounds, with both numbers.
    pub fn drawing(&self, rules: &PromptRules, seed: u64) -> Result<Drawing, String> {
        let asked = self.size.as_ref().map(|size| size.pixels(&rules.sizes)).transpose()?;
        let size = asked.or(rules.size);
        if let Some([width, height]) = size {
            let pixels = u64::from(width) * u64::from(height);
            if pixels == 0 || pixels > rules.pixels_max {
                return Err(format!(
                    "size {width}x{height} has {pixels} pixels but 1 to {} are allowed",
                    rules.pixels_max
                ));
            }
        }
        let steps = self.steps.or(rules.steps);
        if let Some(steps) = steps
            && !(1..=rules.steps_max).contains(&steps)
        {
            return Err(format!("steps is {steps} but 1 to {} are allowed", rules.steps_max));
        }
        let count = self.count.unwrap_or(1);
        if !(1..=rules.count_max).contains(&count) {
            return Err(format!("count is {count} but 1 to {} are allowed", rules.count_max));
        }
        let guidance = self.guidance.or(rules.guidance);
        if let Some(guidance) = guidance
            && !(0.0..=50.0).contains(&guidance)
        {
            return Err(format!("guidance is {guidance} but 0 to 50 are allowed"));
        }
        let palette = self.palette.clone().unwrap_or_else(|| rules.palette.clone());
        if !palette.is_empty()
            && let Err(error) = Palette::parse(&palette)
        {
            return Err(format!("palette: {error}"));
        }
        Ok(Drawing {
            prompt: self.prompt.trim().to_owned(),
            negative: self.negative.clone().unwrap_or_default(),
            style: self.style.clone().or_else(|| rules.style.clone()),
            seed: self.seed.unwrap_or(seed),
            steps,
            guidance,
            size,
            count,
            format: self.format.unwrap_or(rules.format),
            palette,
            dither: self.dither.unwrap_or(rules.dither),
            preview: self.preview.unwrap_or(rules.preview),
        })
    }
}

impl SizeMessage {
    fn pixels(&self, sizes: &SizeSpec) -> Result<[u32; 2], String> {
        match self {
            SizeMessage::Pair(pair) => Ok(*pair),
            SizeMessage::Text(text) => {
                size::parse(text, sizes).map_err(|need| format!("size is {text:?}; {need}"))
            }
        }
    }
}

/// What stands in `cancel` messages: JSON with one of these, or plain text, which is a job or an id.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CancelMessage {
    /// The daemon's name of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The sender's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The job or id that a cancel message names.
///
/// # Errors
/// One sentence for the sender.
pub fn parse_cancel(payload: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(payload)
        .map_err(|_| "the message is not UTF-8; send a job or an id".to_owned())?
        .trim();
    let name = if text.starts_with('{') {
        let message: CancelMessage = serde_json::from_str(text)
            .map_err(|error| format!("the message is no cancel request: {error}"))?;
        message.job.or(message.id).unwrap_or_default()
    } else {
        text.to_owned()
    };
    check_text("job", &name, 1, NAME_BYTES_MAX).map(|()| name)
}

/// What stands in `set` messages: defaults from now on, until the daemon restarts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SetMessage {
    /// Style; empty: the pack's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub style: Option<String>,
    /// Steps; 0: the pack's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Guidance scale; 0: the pack's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f32>,
}

impl SetMessage {
    /// Reads JSON.
    ///
    /// # Errors
    /// One sentence for the sender.
    pub fn parse(payload: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(payload)
            .map_err(|error| format!("the message sets nothing: {error}"))
    }

    /// Changes the rules.
    ///
    /// # Errors
    /// One sentence if a value is out of bounds; nothing is changed then.
    pub fn apply(&self, rules: &mut PromptRules, model: &Model) -> Result<(), String> {
        if let Some(steps) = self.steps
            && steps > rules.steps_max
        {
            return Err(format!("steps is {steps} but 0 to {} are allowed", rules.steps_max));
        }
        if let Some(guidance) = self.guidance
            && !(0.0..=50.0).contains(&guidance)
        {
            return Err(format!("guidance is {guidance} but 0 to 50 are allowed"));
        }
        if let Some(style) = &self.style
            && !style.is_empty()
            && !model.has_style(style)
        {
            return Err(format!("style is {style:?}; there are {}", model.style_list()));
        }
        if let Some(style) = &self.style {
            rules.style = (!style.is_empty()).then(|| style.clone());
        }
        if let Some(steps) = self.steps {
            rules.steps = (steps > 0).then_some(steps);
        }
        if let Some(guidance) = self.guidance {
            rules.guidance = (guidance > 0.0).then_some(guidance);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> PromptRules {
        PromptRules {
            prompt_bytes_max: 100,
            pixels_max: 256 * 256,
            steps_max: 8,
            count_max: 4,
            format: Format::Png,
            style: Some("flat".into()),
            steps: None,
            guidance: None,
            size: None,
            palette: String::new(),
            dither: DitherChoice::default(),
            preview: false,
            sizes: Model::nameless().sizes,
        }
    }

    #[test]
    fn reads_plain_text_and_json() {
        let plain = parse_prompt(b" a red apple \n", &rules()).unwrap();
        assert_eq!(plain.prompt, "a red apple");
        let json = parse_prompt(
            br#"{"prompt": "a cat", "id": "7", "size": "128x96", "seed": 3}"#,
            &rules(),
        )
        .unwrap();
        let drawing = json.drawing(&rules(), 9).unwrap();
        assert_eq!(
            (drawing.size, drawing.seed, drawing.style.as_deref()),
            (Some([128, 96]), 3, Some("flat"))
        );
        assert_eq!(plain.drawing(&rules(), 9).unwrap().seed, 9);
        let json = parse_prompt(br#"{"prompt": "a", "size": "large", "palette": "bw"}"#, &rules());
        let drawing = json.unwrap().drawing(&rules(), 9).unwrap();
        assert_eq!((drawing.size, &*drawing.palette), (Some([256, 256]), "bw"));
    }

    #[test]
    fn says_what_is_wrong_with_both_numbers() {
        let error = |payload: &[u8]| {
            parse_prompt(payload, &rules())
                .and_then(|message| message.drawing(&rules(), 0))
                .unwrap_err()
        };
        assert!(error(br#"{"prompt": "a", "colour": 1}"#).contains("unknown field `colour`"));
        assert!(error(&[b'a'; 101]).contains("101 bytes but at most 100"));
        assert!(error(&vec![b'a'; 1 << 20]).contains("1048576 bytes"));
        assert!(error(b"").contains("empty"));
        assert!(error(&[0xff, 0xfe]).contains("not UTF-8"));
        assert!(error(br#"{"prompt": "a", "steps": 9}"#).contains("steps is 9 but 1 to 8"));
        assert!(error(br#"{"prompt": "a", "steps": 0}"#).contains("steps is 0"));
        assert!(error(br#"{"prompt": "a", "count": 0}"#).contains("count is 0"));
        assert!(error(br#"{"prompt": "a", "size": "1x1x1"}"#).contains("1x1x1"));
        assert!(error(br#"{"prompt": "a", "size": [4096, 4096]}"#).contains("16777216 pixels"));
        assert!(error(br#"{"prompt": "a", "guidance": -1}"#).contains("guidance"));
        assert!(error(br#"{"prompt": "a", "size": "huge"}"#).contains("portrait"));
        assert!(error(br#"{"prompt": "a", "palette": "pink"}"#).contains("palette"));
        let deep = format!("{{\"prompt\": {}", "[".repeat(3000));
        assert!(error(deep.as_bytes()).contains("not a prompt"));
    }

    #[test]
    fn set_changes_all_or_nothing() {
        let mut rules = rules();
        let styles = vec!["flat".to_owned(), "3d".to_owned()];
        let model = Model { styles, ..Model::nameless() };
        let set = |payload: &str| SetMessage::parse(payload.as_bytes()).unwrap();
        assert!(
            set(r#"{"steps": 3, "style": "oil"}"#)
                .apply(&mut rules, &model)
                .unwrap_err()
                .contains("oil")
        );
        assert_eq!(rules.steps, None);
        set(r#"{"steps": 3, "style": "3d", "guidance": 0}"#).apply(&mut rules, &model).unwrap();
        assert_eq!(
            (rules.steps, rules.style.as_deref(), rules.guidance),
            (Some(3), Some("3d"), None)
        );
        assert!(
            SetMessage::parse(br#"{"budget": 3}"#).unwrap_err().contains("unknown field `budget`")
        );
    }

    #[test]
    fn cancel_names_a_job_or_an_id() {
        assert_eq!(parse_cancel(b"abc").unwrap(), "abc");
        assert_eq!(parse_cancel(br#"{"id": "7"}"#).unwrap(), "7");
        assert!(
            parse_cancel(b"{}").is_err()
                && parse_cancel(b" ").is_err()
                && parse_cancel(&[255]).is_err()
        );
    }
}
