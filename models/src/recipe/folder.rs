//! Where things lie in a folder of diffusers' layout.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{RecipeError, read_json};

/// One network of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Name in the pack: `text_encoder`, `denoiser`, `decoder`, `refiner`, `enlarger`.
    pub network: &'static str,
    /// Its ONNX file.
    pub onnx: PathBuf,
    /// Its `config.json`, if there is one.
    pub config: Option<Value>,
}

/// A folder that was looked through.
#[derive(Clone, Debug, PartialEq)]
pub struct Folder {
    /// The folder.
    pub path: PathBuf,
    /// `model_index.json`.
    pub index: Value,
    /// In the order in which a picture needs them; the refiner and the enlarger only if there is one.
    pub components: Vec<Component>,
}

/// Sub-folders that may hold a network, and whether there must be one.
const COMPONENTS: [(&str, &[&str], bool); 5] = [
    ("text_encoder", &["text_encoder"], true),
    ("denoiser", &["unet", "transformer"], true),
    ("decoder", &["vae_decoder"], true),
    ("refiner", &["refiner"], false),
    ("enlarger", &["enlarger"], false),
];

impl Folder {
    /// Looks through a folder.
    ///
    /// # Errors
    /// [`RecipeError`] naming the first file that should be there.
    pub fn open(path: &Path) -> Result<Self, RecipeError> {
        let missing = |path: PathBuf, advice| RecipeError::Missing { path, advice };
        if !path.is_dir() {
            return Err(missing(
                path.to_owned(),
                "name a folder in diffusers' layout, or one .onnx file",
            ));
        }
        let index = read_json(
            &path.join("model_index.json"),
            "export the pipeline in diffusers' layout, with an index",
        )?;
        let mut components = Vec::new();
        for (network, folders, required) in COMPONENTS {
            let found = folders.iter().map(|name| path.join(name)).find(|p| p.is_dir());
            match found {
                Some(folder) => {
                    let onnx = folder.join("model.onnx");
                    if !onnx.is_file() {
                        return Err(missing(onnx, "export this network to ONNX as model.onnx"));
                    }
                    let config = folder.join("config.json");
                    let config = config
                        .is_file()
                        .then(|| read_json(&config, "export it again"))
                        .transpose()?;
                    components.push(Component { network, onnx, config });
                }
                None if required => {
                    return Err(missing(
                        path.join(folders[0]),
                        "a pipeline needs text_encoder/, unet/ or transformer/, and vae_decoder/",
                    ));
                }
                None => {}
            }
        }
        Ok(Folder { path: path.to_owned(), index, components })
    }

    /// A key of the index's `plantain` table.
    pub fn plantain(&self, key: &str) -> Option<&Value> {
        self.index.get("plantain")?.get(key)
    }

    /// A component by its name in the pack.
    pub fn component(&self, network: &str) -> Option<&Component> {
        self.components.iter().find(|component| component.network == network)
    }

    /// Files whose hashes the pack states: networks with their external data, scheduler, tokenizer, index.
    ///
    /// # Errors
    /// [`RecipeError::Read`] if a sub-folder cannot be listed.
    pub fn sources(&self) -> Result<Vec<PathBuf>, RecipeError> {
        let mut files = vec![self.path.join("model_index.json")];
        let mut folders: Vec<PathBuf> = self
            .components
            .iter()
            .filter_map(|component| component.onnx.parent().map(Path::to_owned))
            .collect();
        folders.extend([self.path.join("scheduler"), self.path.join("tokenizer")]);
        for folder in folders {
            let read = |source| RecipeError::Read { path: folder.clone(), source };
            let mut found = Vec::new();
            for entry in std::fs::read_dir(&folder).map_err(read)? {
                let path = entry.map_err(read)?.path();
                if path.is_file() {
                    found.push(path);
                }
            }
            found.sort();
            files.extend(found);
        }
        Ok(files)
    }
}
