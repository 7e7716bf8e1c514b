//! The programs that export, pack and measure, and the folder that their files lie in.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::subject::{Engine, Peer, Subject};
use crate::command::Run;
use crate::{setup, workspace};

/// Programs and files under `target/`.
pub struct Tools {
    folder: PathBuf,
    python: PathBuf,
    scripts: PathBuf,
    release: PathBuf,
}

impl Tools {
    /// Installs the Python packages and builds plantain.
    ///
    /// # Errors
    /// If either fails.
    pub fn new() -> Result<Self> {
        let target = workspace::target_dir();
        let scripts = workspace::root().join("tests/peers");
        setup::venv::install(&target.join("venv-peers"), &scripts.join("requirements.txt"))?;
        Run::cargo().args(["build", "--release", "--workspace", "--bins"]).run()?;
        let folder = target.join("peers");
        std::fs::create_dir_all(&folder)?;
        let python = target.join("venv-peers/bin/python");
        Ok(Tools { folder, python, scripts, release: target.join("release") })
    }

    fn script(&self, name: &str) -> Run {
        Run::new(&self.python).arg(self.scripts.join(name))
    }

    /// The ONNX form of a network with random weights.
    ///
    /// # Errors
    /// If the export fails.
    pub fn export(&self, name: &str) -> Result<PathBuf> {
        let model = self.folder.join(format!("{name}.onnx"));
        if !model.is_file() {
            self.script("networks.py").arg(name).arg(&model).run()?;
        }
        Ok(model)
    }

    /// The pack of a file or folder.
    ///
    /// # Errors
    /// If the packer refuses.
    pub fn pack(&self, label: &str, source: &Path) -> Result<PathBuf> {
        let pack = self.folder.join(format!("{label}.safetensors"));
        if !is_newer(&pack, source)? {
            Run::new(self.release.join("plantain-pack")).arg(source).arg("-o").arg(&pack).run()?;
        }
        Ok(pack)
    }

    /// ONNX Runtime's own int8 form of a model.
    ///
    /// # Errors
    /// If it cannot be quantised.
    pub fn quantised(&self, model: &Path) -> Result<PathBuf> {
        let stem = model.to_string_lossy().replace(['/', '.'], "-");
        let out = self.folder.join(format!("{}.int8.onnx", stem.trim_matches('-')));
        if !is_newer(&out, model)? {
            self.script("onnx_runtime.py")
                .args(["--quantise".as_ref(), model.as_os_str(), out.as_os_str()])
                .output()
                .context("ONNX Runtime could not quantise the model")?;
        }
        Ok(out)
    }

    /// One turn of a peer.
    ///
    /// # Errors
    /// If it fails, or prints no JSON.
    pub fn peer(&self, peer: &Peer, runs: usize) -> Result<Value> {
        let program = match peer.engine {
            Engine::OnnxRuntime => self.script("onnx_runtime.py"),
            Engine::Tract => Run::new(self.release.join("tract_float")),
        };
        let text = program.arg(runs.to_string()).args(&peer.models).output()?;
        Ok(serde_json::from_str(text.trim())?)
    }

    /// One turn of plantain: a whole picture, or the one network of a pack.
    ///
    /// # Errors
    /// If it refuses.
    pub fn plantain(&self, subject: &Subject) -> Result<Value> {
        let budget = subject.budget.map(|budget| ["--budget", budget]);
        let text = Run::new(self.release.join("plantain"))
            .args(["bench", "--json", "--threads", "1", "--runs"])
            .arg(subject.runs.to_string())
            .args(budget.into_iter().flatten())
            .arg(&subject.pack)
            .output()?;
        let bench: Value = serde_json::from_str(&text)?;
        let median = |picture: &str, network: &str| -> Value {
            let whole = &bench[picture];
            if whole.is_number() { whole.clone() } else { bench["networks"][0][network].clone() }
        };
        Ok(json!({
            "cpu_seconds": [median("picture_cpu_seconds_median", "cpu_seconds_median")],
            "wall_seconds": [median("picture_seconds_median", "seconds_median")],
            "peak_rss_bytes": bench["peak_rss_bytes"],
            "bench": bench,
        }))
    }
}

/// Whether a file was made after its source, a file or all files of a folder, was last written.
fn is_newer(made: &Path, source: &Path) -> Result<bool> {
    fn written(path: &Path) -> std::io::Result<SystemTime> {
        let mut last = path.metadata()?.modified()?;
        if path.is_dir() {
            for entry in path.read_dir()? {
                last = last.max(written(&entry?.path())?);
            }
        }
        Ok(last)
    }
    Ok(made.is_file() && written(made)? > written(source)?)
}

/// The CPU's name and what else runs on it.
pub fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let name = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    format!("{}, load of other programs {load}", name.unwrap_or("an unnamed CPU"))
}
