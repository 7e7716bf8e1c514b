//! Every check that a profile must pass beyond its types.

use crate::{Board, BoardError};

const TRIPLES: [&str; 3] =
    ["aarch64-unknown-linux-musl", "armv7-unknown-linux-musleabihf", "x86_64-unknown-linux-musl"];

/// Keys whose figures need a source.
const SOURCED: [&str; 5] = ["ram", "cpu", "memory", "storage", "sensors"];

/// A budget below this draws nothing.
const BUDGET_BYTES_MIN: u64 = 24 << 20;

/// Parses and checks the text of a profile; `origin` names the file in errors.
pub(crate) fn parse(origin: &str, text: &str) -> Result<Board, BoardError> {
    let board: Board = toml::from_str(text).map_err(|error| BoardError::Parse {
        origin: origin.into(),
        reason: one_sentence(&error, text),
    })?;
    match fault(&board) {
        None => Ok(board),
        Some(reason) => Err(BoardError::Invalid { origin: origin.into(), reason }),
    }
}

/// The parser's message with the line it speaks of.
fn one_sentence(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().replace('\n', " ");
    match error.span() {
        Some(span) => {
            let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
            format!("line {line}: {message}")
        }
        None => message,
    }
}

/// The first thing that is wrong.
fn fault(board: &Board) -> Option<String> {
    names(board).or_else(|| numbers(board)).or_else(|| paths(board)).or_else(|| sources(board))
}

fn names(board: &Board) -> Option<String> {
    for name in std::iter::once(&board.name).chain(&board.aliases) {
        let good = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !good {
            return Some(format!(
                "name {name:?} may hold only a-z, 0-9 and -, and starts with a letter"
            ));
        }
    }
    if board.title.trim().is_empty() {
        return Some("title is empty; write the board's name as its maker does".into());
    }
    if !TRIPLES.contains(&board.triple.as_str()) {
        return Some(format!(
            "triple {:?} is not built; there are {}",
            board.triple,
            TRIPLES.join(", ")
        ));
    }
    None
}

fn numbers(board: &Board) -> Option<String> {
    if board.cpu.is_empty() {
        return Some("cpu is empty; describe at least one kind of core".into());
    }
    for cpu in &board.cpu {
        if cpu.count == 0 || cpu.mhz == 0 || cpu.int8_macs_per_cycle == 0 {
            return Some(format!(
                "cpu {:?} has a zero in count, mhz or int8_macs_per_cycle",
                cpu.core
            ));
        }
        if !(cpu.int8_share > 0.0 && cpu.int8_share <= 1.0) {
            return Some(format!(
                "cpu {:?}: int8_share is {}; it is a share of the peak, more than 0 and at most 1",
                cpu.core, cpu.int8_share
            ));
        }
    }
    let speed = |index: usize| {
        board
            .cpu
            .get(index)
            .map_or(0, |cpu| u64::from(cpu.mhz) * u64::from(cpu.int8_macs_per_cycle))
    };
    if (1..board.cpu.len()).any(|index| speed(index) > speed(index - 1)) {
        return Some(
            "cpu lists a slow kind of core before a fast one; the fastest comes first".into(),
        );
    }
    let defaults = &board.defaults;
    if defaults.threads == 0 || defaults.threads > board.cores() {
        return Some(format!(
            "threads is {} but the board has {} cores",
            defaults.threads,
            board.cores()
        ));
    }
    let most = board.ram_bytes / 2;
    if !(BUDGET_BYTES_MIN..=most).contains(&defaults.budget_bytes) {
        return Some(format!(
            "budget is {} MiB; choose {} to {} MiB, half of the {} MiB of RAM",
            defaults.budget_bytes >> 20,
            BUDGET_BYTES_MIN >> 20,
            most >> 20,
            board.ram_bytes >> 20
        ));
    }
    if board.memory.copy_mb_per_s == 0 || board.storage.read_mb_per_s == 0 {
        return Some("copy_mb_per_s and read_mb_per_s must be more than 0".into());
    }
    None
}

fn paths(board: &Board) -> Option<String> {
    for accelerator in &board.accelerators {
        if accelerator.nodes.is_empty() || accelerator.libraries.is_empty() {
            return Some(format!("accelerator {:?} needs nodes and libraries", accelerator.name));
        }
        if let Some(node) = accelerator.nodes.iter().find(|node| !node.starts_with("/dev/")) {
            return Some(format!(
                "accelerator {:?}: node {node:?} does not lie in /dev",
                accelerator.name
            ));
        }
        if accelerator.int8_tops.is_nan() || accelerator.int8_tops <= 0.0 {
            return Some(format!(
                "accelerator {:?}: int8_tops must be more than 0",
                accelerator.name
            ));
        }
    }
    let sensors = board.sensors.thermal.iter().chain(&board.sensors.power);
    if let Some(path) = sensors.clone().find(|path| !path.starts_with("/sys/")) {
        return Some(format!("sensor {path:?} does not lie in /sys"));
    }
    if board.qemu.user_cpu.is_empty() || board.qemu.machine.is_empty() || board.qemu.cpu.is_empty()
    {
        return Some("qemu needs user_cpu, machine and cpu".into());
    }
    None
}

fn sources(board: &Board) -> Option<String> {
    let has = |key: &str| {
        board
            .sources
            .iter()
            .any(|source| !source.from.trim().is_empty() && source.of.iter().any(|of| of == key))
    };
    let accelerators = (!board.accelerators.is_empty()).then_some("accelerators");
    SOURCED
        .into_iter()
        .chain(accelerators)
        .find(|key| !has(key))
        .map(|key| format!("no source speaks for {key:?}; say where its figures are from"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../profiles/rpi-5-hailo8l.toml");

    #[test]
    fn every_contradiction_has_its_sentence() {
        assert!(parse("x.toml", GOOD).is_ok());
        for (from, to, word) in [
            ("name = \"rpi-5-hailo8l\"", "name = \"Rpi 5\"", "may hold only"),
            ("threads = 4", "threads = 5", "threads is 5 but the board has 4 cores"),
            ("budget = \"256M\"", "budget = \"4G\"", "budget is 4096 MiB"),
            ("budget = \"256M\"", "budget = \"256\"", "is not a size"),
            ("aarch64-unknown-linux-musl", "aarch64-apple-darwin", "is not built"),
            ("\"/dev/hailo0\"", "\"/etc/hailo0\"", "does not lie in /dev"),
            ("thermal = [\"/sys/", "thermal = [\"/tmp/", "does not lie in /sys"),
            ("count = 4", "count = 0", "has a zero"),
            ("int8_share = 0.25", "int8_share = 1.5", "int8_share is 1.5"),
            ("int8_share = 0.25", "int8_share = nan", "a share of the peak"),
            ("count = 4", "cuont = 4", "unknown field `cuont`"),
            ("class = \"sd\"", "class = \"tape\"", "tape"),
            ("of = [\"memory\"", "of = [\"memori\"", "no source speaks for \"memory\""),
            ("int8_tops = 13.0", "int8_tops = nan", "int8_tops"),
        ] {
            assert!(GOOD.contains(from), "the profile has no {from}");
            let error = parse("x.toml", &GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("x.toml"), "{from} -> {to}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn parse_errors_name_the_line() {
        let error = parse("x.toml", "name = \"a\"\ntitle = 3\n").unwrap_err().to_string();
        assert!(error.starts_with("board file x.toml: line 2:"), "{error}");
    }
}
