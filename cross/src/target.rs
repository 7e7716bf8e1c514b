//! What can be built for: one TOML in `cross/targets/` a target.

use crate::workspace;
use anyhow::{Context, Result, bail};
use plantain_boards::Board;
use serde::Deserialize;

/// One build target.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Name of the file, and of the build in commands.
    #[serde(skip)]
    pub name: String,
    /// Rust's name of it.
    pub triple: String,
    /// Debian's name of the architecture.
    pub debian_arch: String,
    /// Flags for every crate.
    #[serde(default)]
    pub rustflags: Vec<String>,
    /// Linker, as found on PATH; the host's default where it is absent.
    pub linker: Option<String>,
    /// C compiler, for crates with C or assembly in them; the host's default where it is absent.
    pub cc: Option<String>,
    /// Archiver that belongs to it.
    pub ar: Option<String>,
    /// Zig's name of the target: `zig cc` is then linker and C compiler.
    pub zig: Option<String>,
    /// User-mode emulator that runs its binaries.
    pub emulator: Option<String>,
    /// Debian packages that bring the tools above.
    #[serde(default)]
    pub debian_packages: Vec<String>,
    /// Debian packages that bring Rust's standard library where rustup cannot.
    #[serde(default)]
    pub debian_std: Vec<String>,
    /// Whether packages are tried in a Debian of this architecture. Not for armhf: adding it as a third architecture has
    /// broken apt's index of the second.
    #[serde(default)]
    pub debian_root: bool,
    /// Whether pictures have the bytes of every other machine's; 32-bit NEON flushes denormals.
    #[serde(default = "yes")]
    pub same_bytes: bool,
    /// The stripped device binary may not be larger than this many bytes.
    pub binary_bytes_max: u64,
}

fn yes() -> bool {
    true
}

impl Target {
    /// Reads one target by name.
    pub fn load(name: &str) -> Result<Self> {
        let path = workspace::root().join("cross/targets").join(format!("{name}.toml"));
        let Ok(text) = std::fs::read_to_string(&path) else {
            bail!("no target `{name}`; there are {}", names()?.join(", "));
        };
        Self::parse(name, &text)
    }

    /// The target of a board's binary.
    pub fn of_board(board: &Board) -> Result<Self> {
        for name in names()? {
            let target = Self::load(&name)?;
            if target.triple == board.triple {
                return Ok(target);
            }
        }
        bail!("no file in cross/targets/ has the triple {} of {}", board.triple, board.name)
    }

    /// Parses and checks the text of one file.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let mut target: Self =
            toml::from_str(text).with_context(|| format!("cross/targets/{name}.toml"))?;
        target.name = name.into();
        if target.triple.split('-').count() < 3 {
            bail!("cross/targets/{name}.toml: `{}` is no target triple", target.triple);
        }
        if target.zig.is_some() && (target.cc.is_some() || target.linker.is_some()) {
            bail!(
                "cross/targets/{name}.toml: `zig` brings linker and C compiler; drop `cc`, `linker`"
            );
        }
        if target.binary_bytes_max == 0 {
            bail!("cross/targets/{name}.toml: `binary_bytes_max` is 0; give the size that fits");
        }
        Ok(target)
    }

    /// The triple as environment variables spell it: `AARCH64_UNKNOWN_LINUX_GNU`.
    pub fn env_triple(&self) -> String {
        self.triple.replace('-', "_").to_uppercase()
    }
}

/// Names of all targets, sorted.
pub fn names() -> Result<Vec<String>> {
    let dir = workspace::root().join("cross/targets");
    let mut names: Vec<String> = std::fs::read_dir(&dir)
        .with_context(|| format!("{} cannot be read", dir.display()))?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            (path.extension()? == "toml").then(|| path.file_stem()?.to_str().map(String::from))?
        })
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        triple = "aarch64-unknown-linux-gnu"
        debian_arch = "arm64"
        cc = "aarch64-linux-gnu-gcc"
        binary_bytes_max = 8388608
    "#;

    #[test]
    fn every_target_file_is_valid() {
        let names = names().unwrap();
        assert!(names.len() >= 4, "{names:?}");
        for name in names {
            Target::load(&name).unwrap();
        }
    }

    #[test]
    fn bad_files_are_refused_with_a_reason() {
        assert!(Target::parse("good", GOOD).is_ok());
        for (change, word) in [
            (format!("{GOOD}\nlinkr = \"x\""), "linkr"),
            (GOOD.replace("aarch64-unknown-linux-gnu", "arm"), "no target triple"),
            (format!("{GOOD}\nzig = \"aarch64-linux-musl\""), "drop `cc`"),
            (GOOD.replace("8388608", "0"), "binary_bytes_max"),
        ] {
            let error = format!("{:#}", Target::parse("bad", &change).unwrap_err());
            assert!(error.contains(word) && error.contains("bad.toml"), "{error}");
        }
        let error = Target::load("vax").unwrap_err().to_string();
        assert!(error.contains("no target `vax`") && error.contains("aarch64-gnu"), "{error}");
    }

    #[test]
    fn every_board_has_a_target() {
        for board in plantain_boards::all() {
            assert_eq!(Target::of_board(board).unwrap().triple, board.triple);
        }
    }

    #[test]
    fn cross_knows_every_target() {
        let text = std::fs::read_to_string(workspace::root().join("Cross.toml")).unwrap();
        let settings: toml::Table = text.parse().unwrap();
        let known = settings["target"].as_table().unwrap();
        for name in names().unwrap() {
            let triple = Target::load(&name).unwrap().triple;
            let image = known[&triple]["image"].as_str().unwrap();
            assert!(image.contains(&format!("/{triple}:")), "{image}");
        }
    }

    #[test]
    fn environment_names() {
        assert_eq!(Target::parse("g", GOOD).unwrap().env_triple(), "AARCH64_UNKNOWN_LINUX_GNU");
    }
}
