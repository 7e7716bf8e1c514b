//! A board's processor, emulated: the runtime's own tests, and the same picture as on this machine.

use crate::command::Run;
use crate::compile::{self, Toolchain};
use crate::target::Target;
use crate::workspace;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::path::Path;

/// What is drawn on every machine.
pub const PROMPT: &str = "a red apple";

/// Its seed.
pub const SEED: &str = "7";

/// Runs the runtime's tests as the board's code on the board's processor: kernels against their scalar reference. The
/// one that starts another program is left out: an emulated process of several threads now and then hangs in the fork.
pub fn runtime_tests(target: &Target, toolchain: Toolchain, cpu: &str) -> Result<()> {
    let runner = format!("{} -cpu {cpu}", compile::emulator(target)?.display());
    toolchain
        .cargo(target, "test")
        .args(["--release", "--quiet", "--package", "plantain", "--lib"])
        .args(["--", "--skip", "exiftool_reads_the_mark"])
        .env(format!("CARGO_TARGET_{}_RUNNER", target.env_triple()), runner)
        .run()
        .with_context(|| format!("the runtime's tests on an emulated {cpu}"))
}

/// Draws with this machine's own binary and returns the file's hash.
pub fn host_picture() -> Result<String> {
    let to = workspace::target_dir().join("qemu/host.png");
    draw(Run::new(workspace::release_binary("plantain")), &to)
}

/// Draws with a board's binary on an emulated processor and compares the file with the host's.
pub fn same_picture(target: &Target, binary: &Path, cpu: &str, expected: &str) -> Result<()> {
    let to = workspace::target_dir().join(format!("qemu/{cpu}.png"));
    let emulated = Run::new(compile::emulator(target)?).args(["-cpu", cpu]).arg(binary);
    let hash = draw(emulated, &to).with_context(|| format!("drawing on an emulated {cpu}"))?;
    if hash != expected {
        bail!(
            "an emulated {cpu} drew other bytes: {} has {hash}, this machine {expected}",
            to.display()
        );
    }
    println!("{cpu}: the same picture as here, {hash}");
    Ok(())
}

fn draw(plantain: Run, to: &Path) -> Result<String> {
    std::fs::create_dir_all(to.parent().context("a picture lies in a folder")?)?;
    let plantain = plantain.dir(workspace::root());
    plantain.args(["generate", PROMPT, "--seed", SEED, "-o"]).arg(to).output()?;
    let bytes = std::fs::read(to).with_context(|| format!("{} was not drawn", to.display()))?;
    Ok(hash(&bytes))
}

/// SHA-256 in hexadecimal digits.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn hashes_are_written_as_sha256sum_does() {
        assert_eq!(
            super::hash(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
