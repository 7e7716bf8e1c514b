//! `plantain generate`: a prompt in, picture files out.

use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use plantain::image::eink::Palette;
use plantain::pack::Pack;
use plantain::pipeline::tokenizer::{PROMPT_BYTES_MAX, PromptError, check_prompt};
use plantain::pipeline::{Options, Picture, Pipeline, Progress, Request};
use serde_json::{Value, json};

use super::machine::{MachineChoice, PinChoice};
use super::{PackChoice, Refusal, output, refuse};
use crate::encode::{DitherChoice, Encoding, JPEG_QUALITY};
use crate::job::Format;
use crate::size;

/// Pictures of one call.
const COUNT_MAX: u32 = 1000;

/// Arguments of `plantain generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to draw; - reads it from standard input
    #[arg(required_unless_present = "list_words")]
    prompt: Option<OsString>,
    /// Picture file; its extension is the encoding unless --format names one
    #[arg(short, long, value_name = "FILE", default_value = "plantain.png")]
    output: PathBuf,
    #[command(flatten)]
    pack: PackChoice,
    /// Same pack, prompt and seed: same bytes [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Denoising steps [default: the pack's]
    #[arg(long)]
    steps: Option<u32>,
    /// Run the denoiser at every so many steps only and estimate between: faster, and another picture [default: off]
    #[arg(long, value_name = "N")]
    step_cache: Option<u32>,
    /// Guidance scale; 1 is none [default: the pack's]
    #[arg(long)]
    guidance: Option<f32>,
    /// What to keep out of the picture
    #[arg(long, value_name = "TEXT")]
    negative: Option<String>,
    /// A style of the pack, or none; see `plantain inspect` [default: the pack's]
    #[arg(long)]
    style: Option<String>,
    /// Picture size in pixels, or small, default, large, portrait, landscape [default: the pack's]
    #[arg(long, value_name = "WxH")]
    size: Option<String>,
    /// Pictures, with seeds that count up
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=COUNT_MAX as i64))]
    count: u32,
    #[command(flatten)]
    machine: MachineChoice,
    #[command(flatten)]
    pin: PinChoice,
    /// Encoding [default: by the file's extension]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// JPEG quality
    #[arg(long, default_value_t = JPEG_QUALITY, value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// Reduce to the colours of an e-ink panel: bw, acep7, or 2 to 16 colours as #rrggbb,#rrggbb
    #[arg(long, value_name = "COLOURS", value_parser = Palette::parse)]
    palette: Option<Palette>,
    /// How colours between those of a palette are approached
    #[arg(long, value_enum, default_value_t)]
    dither: DitherChoice,
    /// Leave the prompt out of the picture's file (that it is generated stays in)
    #[arg(long)]
    no_prompt_in_file: bool,
    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
    /// Print the words that the model knows, and stop
    #[arg(long)]
    list_words: bool,
}

/// Draws.
///
/// # Errors
/// A [`Refusal`] if what was asked for cannot be; another error if a file cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let pack = args.pack.path()?;
    if args.list_words {
        return list_words(&pack);
    }
    let prompt = prompt_text(args.prompt.as_deref().unwrap_or_default())?;
    output::check_folder(&args.output)?;
    let encoding = Encoding {
        format: format_of(args)?,
        quality: args.quality,
        palette: args.palette.clone(),
        dither: args.dither,
        include_prompt: !args.no_prompt_in_file,
    };
    let pack = Pack::open(&pack).map_err(refuse)?;
    let size = match &args.size {
        Some(text) => {
            let spec = &pack.pipeline().map_err(refuse)?.size;
            let wrong = |need| Refusal(format!("--size is {text:?}; {need}"));
            Some(size::parse(text, spec).map_err(wrong)?)
        }
        None => None,
    };
    let machine = args.machine.settle()?;
    let options = Options {
        budget_bytes: machine.budget_bytes,
        threads: machine.threads,
        size,
        guidance_scale: args.guidance,
        step_cache: args.step_cache,
        cores: args.pin.cores(&machine)?,
    };
    let mut pipeline = Pipeline::new(Arc::new(pack), options).map_err(refuse)?;
    let seed = args.seed.unwrap_or_else(random_seed);
    let mut pictures = Vec::new();
    for index in 0..args.count {
        let request = Request {
            prompt: prompt.clone(),
            negative: args.negative.clone(),
            style: args.style.clone(),
            seed: seed.wrapping_add(u64::from(index)),
            steps: args.steps,
            guidance_scale: args.guidance,
            size,
            preview: false,
        };
        let bar = Bar::new(args.json, index, args.count);
        let picture =
            pipeline.generate(&request, &mut |progress| bar.show(progress)).map_err(refuse)?;
        bar.end();
        let bytes = encoding.encode(&picture).map_err(refuse)?;
        let path = output::numbered(&args.output, index, args.count);
        output::write_whole(&path, &bytes)?;
        for warning in &picture.warnings {
            eprintln!("plantain: warning: {warning}");
        }
        if !args.json {
            say(&path, &picture)?;
        }
        pictures.push(facts(&path, &bytes, &picture));
    }
    if args.json {
        print_json(&pictures)?;
    }
    Ok(())
}

fn prompt_text(prompt: &std::ffi::OsStr) -> anyhow::Result<String> {
    let bytes = match prompt.as_encoded_bytes() {
        b"-" => from_stdin()?,
        bytes => bytes.to_vec(),
    };
    check_prompt(&bytes).map(str::to_owned).map_err(refuse)
}

/// Standard input without the end of its last line; never more of it in memory than a prompt may have.
fn from_stdin() -> anyhow::Result<Vec<u8>> {
    let (mut input, mut bytes) = (std::io::stdin().lock(), Vec::new());
    input.by_ref().take(PROMPT_BYTES_MAX as u64 + 2).read_to_end(&mut bytes)?;
    let total = bytes.len() as u64 + std::io::copy(&mut input, &mut std::io::sink())?;
    if total > bytes.len() as u64 {
        return Err(refuse(PromptError::TooLong { bytes: total as usize }));
    }
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    Ok(text.strip_suffix(b"\r").unwrap_or(text).to_vec())
}

fn format_of(args: &Args) -> anyhow::Result<Format> {
    if let Some(format) = args.format {
        return Ok(format);
    }
    let extension =
        args.output.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "png" => Ok(Format::Png),
        "jpg" | "jpeg" => Ok(Format::Jpeg),
        "webp" => Ok(Format::Webp),
        "raw1" => Ok(Format::Raw1),
        "raw7" => Ok(Format::Raw7),
        other => {
            let message = format!(
                "the extension {other:?} names no encoding; use .png, .jpg, .webp or --format"
            );
            Err(Refusal(message).into())
        }
    }
}

fn list_words(pack: &Path) -> anyhow::Result<()> {
    let pack = Pack::open(pack).map_err(refuse)?;
    let words = &pack.pipeline().map_err(refuse)?.words;
    if words.is_empty() {
        return Err(Refusal("this pack's vocabulary is open: it lists no words".into()).into());
    }
    let mut out = std::io::stdout().lock();
    for word in words {
        writeln!(out, "{word}")?;
    }
    Ok(())
}

/// A seed from the operating system's random numbers.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // RandomState is keyed by the system; 32 bits are easy to write down.
    std::collections::hash_map::RandomState::new().build_hasher().finish() >> 32
}

fn say(path: &Path, picture: &Picture) -> std::io::Result<()> {
    let cost = &picture.cost;
    let memory = cost
        .peak_rss_bytes
        .map_or(String::new(), |bytes| format!(", peak memory {}", plantain::units::Bytes(bytes)));
    writeln!(
        std::io::stdout(),
        "{}: {}x{}, seed {}, {} steps, {:.2} s{memory}",
        path.display(),
        picture.pixels.width(),
        picture.pixels.height(),
        picture.marking.seed,
        cost.steps,
        cost.seconds.total,
    )
}

fn facts(path: &Path, bytes: &[u8], picture: &Picture) -> Value {
    let mut value = crate::report::facts(picture);
    value.insert("file".into(), path.display().to_string().into());
    value.insert("image_sha256".into(), plantain::hash::sha256(bytes).into());
    value.insert("image_bytes".into(), bytes.len().into());
    Value::Object(value)
}

fn print_json(pictures: &[Value]) -> anyhow::Result<()> {
    let value = match pictures {
        [picture] => picture.clone(),
        _ => json!({ "pictures": pictures }),
    };
    writeln!(std::io::stdout().lock(), "{}", serde_json::to_string_pretty(&value)?)?;
    Ok(())
}

/// Progress: a bar on a terminal, a line a step elsewhere, nothing beside JSON.
enum Bar {
    None,
    Lines { label: String, said: std::cell::Cell<Option<u32>> },
    Terminal(ProgressBar),
}

impl Bar {
    fn new(json: bool, index: u32, count: u32) -> Self {
        let label = if count > 1 {
            format!("picture {} of {count}", index + 1)
        } else {
            "picture".to_owned()
        };
        if json {
            Bar::None
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(1000);
            let template = "{prefix} [{bar:30}] {percent:>3}% {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(label);
            Bar::Terminal(bar)
        } else {
            Bar::Lines { label, said: std::cell::Cell::new(None) }
        }
    }

    fn show(&self, progress: Progress) -> ControlFlow<()> {
        match self {
            Bar::None => {}
            Bar::Terminal(bar) => {
                bar.set_position((progress.fraction * 1000.0) as u64);
                bar.set_message(progress.stage.name());
            }
            Bar::Lines { label, said } => {
                if progress.step > 0 && said.get() != Some(progress.step) {
                    said.set(Some(progress.step));
                    eprintln!("{label}: step {} of {}", progress.step, progress.steps);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn end(&self) {
        if let Bar::Terminal(bar) = self {
            bar.finish_and_clear();
        }
    }
}
