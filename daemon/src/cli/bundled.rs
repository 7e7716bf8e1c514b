//! Where the pack lies that is used when nobody names one.

use std::path::{Path, PathBuf};

use super::Refusal;

/// File name of the bundled pack.
const BUNDLED_NAME: &str = "plantain-icons.safetensors";

/// Which pack to use.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PackChoice {
    /// Pack to use instead of the bundled one
    #[arg(long, value_name = "FILE", env = "PLANTAIN_PACK")]
    pub pack: Option<PathBuf>,
}

impl PackChoice {
    /// The named pack, else the bundled one.
    ///
    /// # Errors
    /// A [`Refusal`] that lists where the bundled pack was looked for.
    pub fn path(&self) -> anyhow::Result<PathBuf> {
        match &self.pack {
            Some(path) => Ok(path.clone()),
            None => find_bundled_pack(),
        }
    }
}

/// Finds the bundled pack: beside the binary, in the install's data folder, in the source tree.
///
/// # Errors
/// A [`Refusal`] that lists where it was looked for.
pub fn find_bundled_pack() -> anyhow::Result<PathBuf> {
    let mut places = Vec::new();
    let exe = std::env::current_exe().unwrap_or_default();
    if let Some(folder) = exe.parent() {
        places.push(folder.to_owned());
        places.push(folder.join("../share/plantain"));
    }
    places.push(PathBuf::from("/usr/share/plantain"));
    let here = std::env::current_dir().unwrap_or_default();
    let tree = [exe.as_path(), here.as_path()]
        .into_iter()
        .flat_map(Path::ancestors)
        .map(|folder| folder.join("models/packs"))
        .find(|folder| folder.is_dir());
    places.extend(tree);
    let files: Vec<PathBuf> = places.into_iter().map(|place| place.join(BUNDLED_NAME)).collect();
    files.iter().find(|file| file.is_file()).cloned().ok_or_else(|| {
        let list: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        Refusal(format!(
            "the bundled pack is in none of {}; name one with --pack FILE",
            list.join(", ")
        ))
        .into()
    })
}
