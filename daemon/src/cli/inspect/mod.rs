//! `plantain inspect`: what a pack holds.
//!
//! Enters: a pack. Leaves: an [`Inspection`], as text or JSON. Never: a network that runs.

mod summary;
mod text;

use std::io::Write;
use std::path::PathBuf;

use plantain::pack::{Pack, PublicKey};

pub use summary::{Attention, Inspection, Layer, Network, Port, Precision};

use super::{PackChoice, Refusal, refuse};

/// Arguments of `plantain inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pack to show; the bundled one if none is named
    #[arg(value_name = "PACK")]
    pack: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Read every byte and compare it with its hash
    #[arg(long)]
    verify: bool,
    /// Require a signature of this minisign key (a .pub file) in PACK.minisig
    #[arg(long, value_name = "FILE", env = "PLANTAIN_KEY")]
    key: Option<PathBuf>,
}

/// Prints what a pack holds.
///
/// # Errors
/// A [`Refusal`] if the pack is not one, is damaged, or is not signed where a key is given.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let path = PackChoice { pack: args.pack.clone() }.path()?;
    let pack = match &args.key {
        None => Pack::open(&path).map_err(refuse)?,
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                Refusal(format!("cannot read the key {}: {error}", file.display()))
            })?;
            let key = PublicKey::parse(&text).map_err(refuse)?;
            Pack::open_signed(&path, &key).map_err(refuse)?
        }
    };
    let mut inspection = Inspection::new(&pack)?;
    inspection.signature_verified = args.key.is_some();
    if args.verify {
        inspection.verify(&pack).map_err(refuse)?;
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&inspection)?)?;
    } else {
        write!(out, "{inspection}")?;
    }
    Ok(())
}
