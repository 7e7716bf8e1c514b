//! What is compared: ONNX files that together are one run, their pack, and the peers that run them too.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::tools::Tools;

/// A network that `tests/peers/networks.py` exports.
struct Known {
    name: &'static str,
    what: &'static str,
    /// Runs of each turn.
    runs: usize,
    /// Budget of plantain's process.
    budget: Option<&'static str>,
    /// Whether tract's float run is measured too.
    tract: bool,
}

/// Smallest first. Budgets are below a quarter of what ONNX Runtime takes in int8; the largest is below its weights, so that
/// some of them are streamed.
const KNOWN: [Known; 3] = [
    Known {
        name: "taesd",
        what: "TAESD's decoder, 512 x 512 pixels",
        runs: 5,
        budget: None,
        tract: true,
    },
    Known {
        name: "bk-sdm-tiny",
        what: "one step of BK-SDM-Tiny's UNet, 64 x 64 cells",
        runs: 2,
        budget: Some("500M"),
        tract: false,
    },
    Known {
        name: "sd15",
        what: "one step of Stable Diffusion 1.5's UNet, 64 x 64 cells",
        runs: 2,
        budget: Some("680M"),
        tract: false,
    },
];

/// Networks that are measured when none is named; the others take more than 12 GB while they are exported.
pub const DEFAULT: [&str; 2] = ["taesd", "bk-sdm-tiny"];

/// Runs of each turn of a folder's networks.
const FOLDER_RUNS: usize = 100;

/// Networks that a picture of the pack's own size does not run.
const NOT_RUN: [&str; 1] = ["enlarger"];

/// One comparison.
pub struct Subject {
    /// A name of [`KNOWN`], or the folder's.
    pub name: String,
    /// What one run is.
    pub what: String,
    /// plantain's side.
    pub pack: PathBuf,
    /// See [`Known`].
    pub budget: Option<&'static str>,
    /// Runs of each turn.
    pub runs: usize,
    /// The other sides.
    pub peers: Vec<Peer>,
}

/// Another engine's side: what it loads for one run.
pub struct Peer {
    /// As printed.
    pub name: &'static str,
    /// Which program runs it.
    pub engine: Engine,
    /// ONNX files that are loaded together and run one after the other.
    pub models: Vec<PathBuf>,
}

/// What can run an ONNX file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// From PyPI.
    OnnxRuntime,
    /// As `tests/peers/tract_float.rs` calls it.
    Tract,
}

impl Subject {
    /// Exports, quantises and packs what is not there yet.
    ///
    /// # Errors
    /// If the name is neither known nor a folder, or a program fails.
    pub fn prepare(tools: &Tools, name: &str) -> Result<Self> {
        if let Some(known) = KNOWN.iter().find(|known| known.name == name) {
            let model = tools.export(name)?;
            return Ok(Subject {
                name: name.to_owned(),
                what: known.what.to_owned(),
                pack: tools.pack(name, &model)?,
                budget: known.budget,
                runs: known.runs,
                peers: peers(tools, vec![model], known.tract)?,
            });
        }
        let folder = Path::new(name);
        if !folder.is_dir() {
            let known = KNOWN.map(|known| known.name).join(", ");
            bail!("{name} is no network that is known ({known}) and no folder; name one of them");
        }
        let mut models: Vec<PathBuf> = std::fs::read_dir(folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| !NOT_RUN.iter().any(|name| path.ends_with(name)))
            .map(|path| path.join("model.onnx"))
            .filter(|model| model.is_file())
            .collect();
        models.sort();
        let label = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let parts: Vec<_> = models.iter().filter_map(|model| model.parent()?.file_name()).collect();
        let parts: Vec<_> = parts.iter().map(|part| part.to_string_lossy()).collect();
        Ok(Subject {
            what: format!("one picture by {}", parts.join(", ")),
            pack: tools.pack(&label, folder)?,
            name: label,
            budget: None,
            runs: FOLDER_RUNS,
            peers: peers(tools, models, true)?,
        })
    }
}

fn peers(tools: &Tools, models: Vec<PathBuf>, tract: bool) -> Result<Vec<Peer>> {
    let int8 = models.iter().map(|model| tools.quantised(model)).collect::<Result<_>>()?;
    let engine = Engine::OnnxRuntime;
    let mut peers = vec![
        Peer { name: "ONNX Runtime int8", engine, models: int8 },
        Peer { name: "ONNX Runtime f32", engine, models: models.clone() },
    ];
    if tract {
        peers.push(Peer { name: "tract f32", engine: Engine::Tract, models });
    }
    Ok(peers)
}
