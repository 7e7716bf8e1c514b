//! What a board is given, in bytes: binary, pack, package, arena. What grew beyond its bound fails.

use crate::command::Run;
use crate::compile::{self, Toolchain};
use crate::package::deb;
use crate::qemu::bundled_pack;
use crate::target::Target;
use crate::workspace;
use anyhow::{Context, Result, bail};
use plantain_boards::Board;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What `cargo xtask size` is asked for.
#[derive(clap::Args)]
pub struct Options {
    /// Boards whose binaries are built first; without any, all boards, with the binaries that are built already.
    boards: Vec<String>,
    /// Cargo profile of the binaries.
    #[arg(long, default_value = compile::DIST)]
    profile: String,
}

/// `cross/sizes.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Of the bundled pack.
    pub pack_bytes_max: u64,
    /// Of a Debian package.
    pub deb_bytes_max: u64,
    /// Of the arena, by board.
    pub arena_bytes_max: BTreeMap<String, u64>,
}

impl Bounds {
    /// Reads the file.
    pub fn load() -> Result<Self> {
        let path = workspace::root().join("cross/sizes.toml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        toml::from_str(&text).context("cross/sizes.toml")
    }
}

/// One thing of a board, its size and its bound.
#[derive(Debug)]
struct Size {
    what: &'static str,
    /// `None`: it is not built.
    bytes: Option<u64>,
    bytes_max: u64,
    bound_in: String,
}

/// Measures and prints; builds the host's binary, and those of the boards that are named.
pub fn run(options: &Options) -> Result<()> {
    compile::host()?;
    let named: Vec<Board> =
        options.boards.iter().map(|name| plantain_boards::load(name)).collect::<Result<_, _>>()?;
    for board in &named {
        compile::cross(board, &options.profile)?;
    }
    let boards = if named.is_empty() { plantain_boards::all() } else { &named };
    report(boards, &options.profile)
}

/// Measures and prints what is built.
///
/// # Errors
/// If something is larger than its bound, or no board's binary is built.
pub fn report(boards: &[Board], profile: &str) -> Result<()> {
    let bounds = Bounds::load()?;
    let mut faults = Vec::new();
    let mut binaries = 0;
    println!("{:<17} {:>9} {:>18} {:>12}  bound", "BOARD", "WHAT", "BYTES", "MiB");
    for board in boards {
        for size in sizes(board, profile, &bounds)? {
            println!("{}", line(&board.name, &size));
            binaries += u32::from(size.what == "binary" && size.bytes.is_some());
            faults.extend(fault(&board.name, &size));
        }
    }
    if binaries == 0 {
        bail!(
            "no binary of profile `{profile}` is built; name a board: cargo xtask size rpi-zero2w"
        );
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(())
}

fn sizes(board: &Board, profile: &str, bounds: &Bounds) -> Result<[Size; 4]> {
    let target = Target::of_board(board)?;
    let length = |path: &Path| std::fs::metadata(path).ok().map(|file| file.len());
    let arena_bytes_max = bounds.arena_bytes_max.get(&board.name);
    let in_sizes = || "cross/sizes.toml".to_string();
    Ok([
        Size {
            what: "binary",
            bytes: Toolchain::built(&target, profile).and_then(|path: PathBuf| length(&path)),
            bytes_max: target.binary_bytes_max,
            bound_in: format!("cross/targets/{}.toml", target.name),
        },
        Size {
            what: "pack",
            bytes: length(&bundled_pack()?),
            bytes_max: bounds.pack_bytes_max,
            bound_in: in_sizes(),
        },
        Size {
            what: "package",
            bytes: length(&deb::path(&target)),
            bytes_max: bounds.deb_bytes_max,
            bound_in: in_sizes(),
        },
        Size {
            what: "arena",
            bytes: Some(arena_bytes(board)?),
            // A profile of the operator's own has no bound.
            bytes_max: arena_bytes_max.copied().unwrap_or(u64::MAX),
            bound_in: in_sizes(),
        },
    ])
}

/// The arena that this machine's binary plans for the board.
fn arena_bytes(board: &Board) -> Result<u64> {
    let plan = Run::new(workspace::release_binary("plantain"))
        .dir(workspace::root())
        .args(["plan", "--json", "--board", &board.name])
        .output()?;
    let plan: serde_json::Value = serde_json::from_str(&plan).context("output of plantain plan")?;
    plan["memory"]["arena_bytes"].as_u64().context("plantain plan does not tell the arena's size")
}

fn line(board: &str, size: &Size) -> String {
    let bound = match size.bytes_max {
        u64::MAX => "none".into(),
        bytes => bytes.to_string(),
    };
    match size.bytes {
        Some(bytes) => format!(
            "{board:<17} {:>9} {bytes:>18} {:>12.2}  {bound}",
            size.what,
            bytes as f64 / f64::from(1 << 20)
        ),
        None => format!("{board:<17} {:>9} {:>18} {:>12}  {bound}", size.what, "not built", ""),
    }
}

fn fault(board: &str, size: &Size) -> Option<String> {
    let bytes = size.bytes.filter(|&bytes| bytes > size.bytes_max)?;
    Some(format!(
        "{board}: the {} has {bytes} bytes, at most {} are allowed; make it smaller, or raise the bound in {}",
        size.what, size.bytes_max, size.bound_in
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(bytes: Option<u64>) -> Size {
        Size { what: "arena", bytes, bytes_max: 100, bound_in: "cross/sizes.toml".into() }
    }

    #[test]
    fn what_grew_beyond_its_bound_is_named_with_both_numbers() {
        assert!(fault("rpi-4", &size(Some(100))).is_none());
        assert!(fault("rpi-4", &size(None)).is_none());
        let text = fault("rpi-4", &size(Some(101))).unwrap();
        for word in ["rpi-4", "arena", "101", "100", "cross/sizes.toml"] {
            assert!(text.contains(word), "{word} in {text}");
        }
        assert!(line("rpi-4", &size(None)).contains("not built"));
    }

    #[test]
    fn every_board_has_a_bound_and_every_bound_a_board() {
        let bounds = Bounds::load().unwrap();
        let bounded: Vec<&str> = bounds.arena_bytes_max.keys().map(String::as_str).collect();
        let mut boards: Vec<&str> =
            plantain_boards::all().iter().map(|board| board.name.as_str()).collect();
        boards.sort();
        assert_eq!(bounded, boards);
    }

    #[test]
    fn an_unknown_bound_is_refused() {
        let text = "pack_bytes_max = 1\ndeb_bytes_max = 1\nzip_bytes_max = 1\n[arena_bytes_max]\n";
        let error = toml::from_str::<Bounds>(text).unwrap_err().to_string();
        assert!(error.contains("zip_bytes_max"), "{error}");
    }
}
