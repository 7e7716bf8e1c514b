//! `cargo xtask bench-peers`: plantain beside ONNX Runtime, on the same networks, in one run, on one thread.
//!
//! Sides take turns, so that what else the machine does falls on all alike; CPU seconds are compared at the median.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::Run;
use crate::{setup, workspace};

/// Names that `tests/peers/networks.py` knows, smallest first, and the runs of each turn.
const NETWORKS: [(&str, usize); 3] = [("taesd", 5), ("bk-sdm-tiny", 1), ("sd15", 1)];

/// Networks that are measured when none is named; the others take more than 12 GB while they are exported.
const DEFAULT: [&str; 2] = ["taesd", "bk-sdm-tiny"];

/// Arguments of `bench-peers`.
#[derive(clap::Args)]
pub struct Options {
    /// taesd, bk-sdm-tiny, sd15, or a folder in diffusers' layout whose networks all run once a picture; the first two
    /// if none is named.
    networks: Vec<String>,
    /// Turns that each side gets.
    #[arg(long, default_value_t = 3)]
    turns: usize,
}

/// One side's figures.
struct Side {
    name: &'static str,
    seconds: Vec<f64>,
    peak_rss_bytes: u64,
}

impl Side {
    fn new(name: &'static str) -> Self {
        Side { name, seconds: Vec::new(), peak_rss_bytes: 0 }
    }

    fn take(&mut self, seconds: impl IntoIterator<Item = f64>, peak: Option<u64>) {
        self.seconds.extend(seconds);
        self.peak_rss_bytes = self.peak_rss_bytes.max(peak.unwrap_or_default());
    }

    fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// What is compared: ONNX files that together are one run, and the pack of them.
struct Subject {
    name: String,
    models: Vec<PathBuf>,
    pack: PathBuf,
    runs: usize,
}

/// Exports, packs, measures, prints.
pub fn run(options: &Options) -> Result<()> {
    let tools = Tools::new()?;
    let names: Vec<String> = match options.networks.as_slice() {
        [] => DEFAULT.map(str::to_owned).to_vec(),
        named => named.to_vec(),
    };
    println!("one thread, CPU seconds a run at the median of {} turns", options.turns);
    for name in &names {
        let subject = tools.subject(name)?;
        let quantised: Vec<PathBuf> =
            subject.models.iter().map(|model| tools.quantised(model)).collect::<Result<_>>()?;
        let mut sides = ["plantain", "ONNX Runtime int8", "ONNX Runtime f32"].map(Side::new);
        for _ in 0..options.turns {
            tools.plantain(&subject, &mut sides[0])?;
            tools.onnx_runtime(&quantised, subject.runs, &mut sides[1])?;
            tools.onnx_runtime(&subject.models, subject.runs, &mut sides[2])?;
        }
        println!("\n{}", subject.name);
        for side in &sides {
            println!(
                "  {:<18} {:>9.4} s  {:>5.2} times plantain's   peak memory {:>7.1} MiB",
                side.name,
                side.median(),
                side.median() / sides[0].median(),
                side.peak_rss_bytes as f64 / f64::from(1 << 20)
            );
        }
    }
    Ok(())
}

/// The programs and the folder that their files lie in.
struct Tools {
    folder: PathBuf,
    python: PathBuf,
    scripts: PathBuf,
}

impl Tools {
    fn new() -> Result<Self> {
        let target = workspace::target_dir();
        let scripts = workspace::root().join("tests/peers");
        setup::venv::install(&target.join("venv-peers"), &scripts.join("requirements.txt"))?;
        Run::cargo().args(["build", "--release", "--workspace", "--bins"]).run()?;
        let folder = target.join("peers");
        std::fs::create_dir_all(&folder)?;
        Ok(Tools { folder, python: target.join("venv-peers/bin/python"), scripts })
    }

    fn subject(&self, name: &str) -> Result<Subject> {
        let known = NETWORKS.iter().find(|(known, _)| *known == name);
        let folder = Path::new(name);
        let (label, source, models, runs) = match known {
            Some(&(_, runs)) => {
                let model = self.folder.join(format!("{name}.onnx"));
                if !model.is_file() {
                    Run::new(&self.python)
                        .arg(self.scripts.join("networks.py"))
                        .args([name.as_ref(), model.as_os_str()])
                        .run()?;
                }
                (name.to_owned(), model.clone(), vec![model], runs)
            }
            None if folder.is_dir() => {
                let mut models: Vec<PathBuf> = std::fs::read_dir(folder)?
                    .filter_map(|entry| Some(entry.ok()?.path().join("model.onnx")))
                    .filter(|model| model.is_file())
                    .collect();
                models.sort();
                let label = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                (label, folder.to_owned(), models, 100)
            }
            None => {
                let known = NETWORKS.map(|(known, _)| known).join(", ");
                bail!(
                    "{name} is no network that is known ({known}) and no folder; name one of them"
                );
            }
        };
        let pack = self.folder.join(format!("{label}.safetensors"));
        if !pack.is_file() {
            let packer = workspace::target_dir().join("release/plantain-pack");
            Run::new(packer).arg(&source).arg("-o").arg(&pack).run()?;
        }
        Ok(Subject { name: label, models, pack, runs })
    }

    /// ONNX Runtime's own int8 form of a model, in the folder of this run.
    fn quantised(&self, model: &Path) -> Result<PathBuf> {
        let stem = model.to_string_lossy().replace(['/', '.'], "-");
        let out = self.folder.join(format!("{}.int8.onnx", stem.trim_matches('-')));
        if !out.is_file() {
            Run::new(&self.python)
                .arg(self.scripts.join("onnx_runtime.py"))
                .args(["--quantise".as_ref(), model.as_os_str(), out.as_os_str()])
                .output()
                .context("ONNX Runtime could not quantise the model")?;
        }
        Ok(out)
    }

    fn onnx_runtime(&self, models: &[PathBuf], runs: usize, side: &mut Side) -> Result<()> {
        let (mut seconds, mut peak) = (vec![0.0; runs], 0);
        for model in models {
            let text = Run::new(&self.python)
                .arg(self.scripts.join("onnx_runtime.py"))
                .args([model.as_os_str(), runs.to_string().as_ref()])
                .output()?;
            let value: Value = serde_json::from_str(text.trim())?;
            let each = value["cpu_seconds"].as_array().context("no seconds were measured")?;
            for (sum, one) in seconds.iter_mut().zip(each) {
                *sum += one.as_f64().unwrap_or(f64::NAN);
            }
            // All networks of a picture are loaded together in use.
            peak += value["peak_rss_bytes"].as_u64().unwrap_or_default();
        }
        side.take(seconds, Some(peak));
        Ok(())
    }

    fn plantain(&self, subject: &Subject, side: &mut Side) -> Result<()> {
        let text = Run::new(workspace::target_dir().join("release/plantain"))
            .args(["bench", "--json", "--threads", "1", "--runs"])
            .arg(subject.runs.to_string())
            .arg(&subject.pack)
            .output()?;
        let value: Value = serde_json::from_str(&text)?;
        // A whole picture, or the one network of a pack.
        let seconds = value["picture_cpu_seconds_median"]
            .as_f64()
            .or_else(|| value["networks"][0]["cpu_seconds_median"].as_f64());
        side.take(seconds, value["peak_rss_bytes"].as_u64());
        Ok(())
    }
}
