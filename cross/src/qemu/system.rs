//! A whole board, emulated: kernel, memory, disks, network, and the binary in it.

use super::broker::Broker;
use super::guest::{self, Base};
use super::machine::{self, Parts};
use super::user::{PROMPT, SEED, hash};
use super::watch::Watch;
use crate::workspace;
use anyhow::{Context, Result, bail};
use plantain_boards::Board;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time until an emulated board has booted, drawn or answered.
const PATIENCE: Duration = Duration::from_secs(240);

/// Time in which a second answer to the same job would have come.
const SECOND_ANSWER: Duration = Duration::from_secs(5);

/// Room for journal and kept answers on the board's second disk, bytes.
const STATE_BYTES: u64 = 32 << 20;

/// Topics' first part for the emulated board.
const DEVICE: &str = "plantain/board";

/// The emulated board with all its parts on this machine's disk.
struct Bench<'a> {
    board: &'a Board,
    binary: &'a Path,
    base: Base,
    folder: PathBuf,
    ram_bytes: u64,
    budget_bytes: u64,
    disks: Vec<PathBuf>,
}

/// Boots the board twice or more: drawing inside a memory limit, serving over MQTT, and serving after a power cut.
pub fn run(board: &Board, binary: &Path, ram_bytes: u64, expected: &str) -> Result<()> {
    let folder = workspace::target_dir().join("qemu").join(&board.name);
    std::fs::create_dir_all(&folder)?;
    let mut bench = Bench {
        board,
        binary,
        base: Base::ensure()?,
        ram_bytes,
        budget_bytes: board.defaults.budget_bytes.min(ram_bytes / 2),
        disks: vec![pack_disk(&folder)?],
        folder,
    };
    bench.doctor()?;
    bench.generate(expected)?;
    bench.disks.push(state_disk(&bench.folder)?);
    bench.serve(expected)
}

impl Bench<'_> {
    /// Boots with a job of its own.
    fn boot(&self, name: &str, job: &str) -> Result<Watch> {
        let root = self.folder.join(format!("{name}.cpio.gz"));
        self.base.write_root(&root, job, &[("plantain", self.binary)])?;
        let mut board = machine::start(&Parts {
            machine: &self.board.qemu.machine,
            cpu: &self.board.qemu.cpu,
            ram_bytes: self.ram_bytes,
            kernel: &self.base.kernel()?,
            root: &root,
            disks: &self.disks,
        })?;
        let up = board.wait_for(&["guest: up"], PATIENCE)?;
        println!("{} with {} MiB: {up}", self.board.title, self.ram_bytes >> 20);
        Ok(board)
    }

    /// The binary starts there and knows where it is.
    fn doctor(&self) -> Result<()> {
        let job = format!("plantain doctor --board {}\n", self.board.name);
        let mut board = self.boot("doctor", &job)?;
        board.wait_for(&["ok ", "architecture"], PATIENCE)?;
        board.wait_for_end(PATIENCE)?;
        Ok(())
    }

    /// Draws from the pack on the first disk inside a memory limit of the budget; the picture is the one drawn here.
    fn generate(&self, expected: &str) -> Result<()> {
        let command = format!(
            "plantain generate \"{PROMPT}\" --seed {SEED} --budget {} --pack /pack/pack.safetensors -o /tmp/picture.png",
            self.budget_bytes
        );
        let job = format!(
            "{}\necho \"picture: $(sha256sum /tmp/picture.png | cut -d' ' -f1)\"\n",
            limited(self.budget_bytes, &command)
        );
        let mut board = self.boot("generate", &job)?;
        board.wait_for_end(PATIENCE)?;
        let kills = board.said("killed:").unwrap_or("unknown");
        if kills != "0" {
            bail!(
                "drawing inside {} MiB: {kills} kills; the board's words:\n{}",
                self.budget_bytes >> 20,
                board.tail()
            );
        }
        let drawn = board.said("picture:").unwrap_or_default();
        if drawn != expected {
            bail!(
                "the emulated board drew {drawn:?}, this machine {expected}; its words:\n{}",
                board.tail()
            );
        }
        println!(
            "{}: drew the same picture inside {} MiB, peak {} bytes",
            self.board.title,
            self.budget_bytes >> 20,
            board.said("peak:").unwrap_or("unknown")
        );
        Ok(())
    }

    /// Answers a prompt over MQTT; loses its power while it draws a second; answers that one, once, when it is back.
    fn serve(&self, expected: &str) -> Result<()> {
        let broker = Broker::start(&self.folder)?;
        let job = limited(
            self.budget_bytes,
            &format!(
                "plantain serve --broker mqtt://10.0.2.2:{} --device board --state-dir /state \\
    --pack /pack/pack.safetensors --budget {}",
                broker.port, self.budget_bytes
            ),
        );
        let mut talk =
            broker.subscribe(&[&format!("{DEVICE}/result"), &format!("{DEVICE}/status")])?;
        let picture =
            broker.next_payload(&format!("{DEVICE}/image"), &self.folder.join("mqtt.png"))?;
        let board = self.boot("serve", &job)?;
        talk.wait_for(&["/status", "\"idle\""], PATIENCE)?;
        broker.publish(&format!("{DEVICE}/prompt"), &prompt("first", SEED))?;
        talk.wait_for(&["/result", "\"first\"", "\"done\""], PATIENCE)?;
        let drawn = hash(&picture.wait(PATIENCE)?);
        if drawn != expected {
            bail!("the picture that came over MQTT is {drawn}, this machine drew {expected}");
        }
        println!("{}: a prompt over MQTT was answered with the same picture", self.board.title);

        broker.publish(&format!("{DEVICE}/prompt"), &prompt("second", "8"))?;
        talk.wait_for(&["/status", "\"drawing\""], PATIENCE)?;
        board.kill()?;
        let board = self.boot("serve", &job)?;
        talk.wait_for(&["/result", "\"second\"", "\"done\""], PATIENCE)?;
        talk.listen(SECOND_ANSWER);
        let answers = talk
            .log()
            .iter()
            .filter(|line| line.contains("/result") && line.contains("\"second\""))
            .count();
        if answers != 1 {
            bail!(
                "the prompt during which the power was cut was answered {answers} times, not once"
            );
        }
        println!("{}: power cut while drawing: answered once after the restart", self.board.title);
        board.kill()
    }
}

/// A prompt message with an identity.
fn prompt(id: &str, seed: &str) -> String {
    format!("{{\"prompt\": \"{PROMPT}\", \"seed\": {seed}, \"id\": \"{id}\"}}")
}

/// A command inside a memory limit, and what the limit says afterwards.
fn limited(budget_bytes: u64, command: &str) -> String {
    format!(
        "limit=/sys/fs/cgroup/plantain
mkdir $limit
echo {budget_bytes} >$limit/memory.max
(
    sh -c 'echo $PPID' >$limit/cgroup.procs
    {command}
)
echo \"ended: $?\"
echo \"peak: $(cat $limit/memory.peak)\"
echo \"killed: $(grep '^oom_kill ' $limit/memory.events | cut -d' ' -f2)\""
    )
}

/// The bundled pack on a disk of its own.
fn pack_disk(folder: &Path) -> Result<PathBuf> {
    let pack = bundled_pack()?;
    let files = folder.join("pack");
    std::fs::create_dir_all(&files)?;
    std::fs::copy(&pack, files.join("pack.safetensors"))?;
    let image = folder.join("pack.img");
    guest::write_disk(&image, &files, 0)?;
    Ok(image)
}

/// An empty disk for the journal.
fn state_disk(folder: &Path) -> Result<PathBuf> {
    let files = folder.join("state");
    std::fs::create_dir_all(&files)?;
    let image = folder.join("state.img");
    guest::write_disk(&image, &files, STATE_BYTES)?;
    Ok(image)
}

/// The pack that ships with the binary.
pub fn bundled_pack() -> Result<PathBuf> {
    let packs = workspace::root().join("models/packs");
    std::fs::read_dir(&packs)
        .with_context(|| format!("{} cannot be read", packs.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .with_context(|| format!("{} holds no pack; see models/README.md", packs.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_command_is_a_script() {
        let script = limited(1 << 20, "plantain boards");
        let check = crate::command::Run::new("sh").args(["-n", "-c", &script]);
        assert!(check.succeeds(), "{script}");
        assert!(script.contains("echo 1048576 >$limit/memory.max"));
    }

    #[test]
    fn prompts_are_json() {
        let message: serde_json::Value = serde_json::from_str(&prompt("a", "7")).unwrap();
        assert_eq!((message["id"].as_str(), message["seed"].as_u64()), (Some("a"), Some(7)));
    }
}
