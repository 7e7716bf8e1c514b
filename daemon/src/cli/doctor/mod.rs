//! `plantain doctor`: compares a board's profile with the machine, and says what to do about what differs.
//!
//! Enters: a profile, and what Linux says of the machine. Leaves: one line a check, with the advice. Never: loads a
//! driver, opens a device file or changes anything.

mod machine;

use machine::Machine;
use plantain_boards::Board;
use serde::Serialize;
use std::io::Write;
use std::path::Path;

/// Arguments of `plantain doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Profile to compare with: a name or FILE.toml; without it, the one that the machine's model names
    #[arg(long, value_name = "BOARD", env = "PLANTAIN_BOARD")]
    board: Option<String>,
    /// Print JSON: one object with all checks
    #[arg(long)]
    json: bool,
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As the profile says, or better.
    Good,
    /// Works, but differs.
    Note,
    /// The profile's defaults will not work.
    Problem,
}

/// One comparison.
#[derive(Debug, Serialize)]
struct Check {
    what: String,
    verdict: Verdict,
    expected: String,
    found: String,
    /// What to do; empty where all is good.
    advice: String,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    board: &'a str,
    title: &'a str,
    model: Option<&'a str>,
    checks: Vec<Check>,
}

/// Compares and prints.
///
/// # Errors
/// A refusal if the board is unknown; an error that counts the problems if there are any.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let machine = Machine::read(Path::new("/"));
    let board = match &args.board {
        Some(name) => super::boards::named(name)?,
        None => guess(machine.model.as_deref()),
    };
    let checks = compare(&board, &machine);
    let problems = checks.iter().filter(|check| check.verdict == Verdict::Problem).count();
    let report =
        Report { board: &board.name, title: &board.title, model: machine.model.as_deref(), checks };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        write!(out, "{}", text(&report))?;
    }
    match problems {
        0 => Ok(()),
        1 => anyhow::bail!("1 problem on this machine; the line marked PROBLEM says what to do"),
        _ => anyhow::bail!(
            "{problems} problems on this machine; the lines marked PROBLEM say what to do"
        ),
    }
}

/// The board whose model this is, else the generic one of the architecture.
fn guess(model: Option<&str>) -> Board {
    let known = model.and_then(|model| {
        plantain_boards::all()
            .iter()
            .find(|board| board.models.iter().any(|prefix| model.starts_with(prefix.as_str())))
    });
    let generic = || {
        let name = match std::env::consts::ARCH {
            "aarch64" => "generic-aarch64",
            "arm" => "generic-armv7",
            _ => "generic-x86-64",
        };
        plantain_boards::find(name).expect("the generic boards are built in")
    };
    known.unwrap_or_else(generic).clone()
}

fn text(report: &Report) -> String {
    let model = report.model.unwrap_or("a machine without a device tree");
    let mut text = format!("{} ({}) against {model}\n", report.title, report.board);
    for check in &report.checks {
        let mark = match check.verdict {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Problem => "PROBLEM",
        };
        text += &format!("  {mark:<8} {:<22} {}", check.what, check.found);
        if check.verdict != Verdict::Good {
            text += &format!(" (profile: {})", check.expected);
        }
        text += "\n";
        if !check.advice.is_empty() {
            text += &format!("           {}\n", check.advice);
        }
    }
    text
}

fn compare(board: &Board, machine: &Machine) -> Vec<Check> {
    let mut checks = vec![architecture(board), model(board, machine)];
    checks.extend(processor(board, machine));
    checks.extend(memory(board, machine));
    checks.extend(board.accelerators.iter().map(|accelerator| device(accelerator, machine)));
    checks.extend(sensors(board, machine));
    checks
}

fn check(what: &str, verdict: Verdict, expected: String, found: String, advice: String) -> Check {
    let advice = if verdict == Verdict::Good { String::new() } else { advice };
    Check { what: what.into(), verdict, expected, found, advice }
}

fn architecture(board: &Board) -> Check {
    let wanted = board.triple.split('-').next().unwrap_or_default();
    let is = match std::env::consts::ARCH {
        "arm" => "armv7",
        other => other,
    };
    let verdict = if wanted == is { Verdict::Good } else { Verdict::Problem };
    let advice = format!("this binary runs {is} code: name the right board with --board");
    check("architecture", verdict, wanted.into(), is.into(), advice)
}

fn model(board: &Board, machine: &Machine) -> Check {
    let found = machine.model.clone().unwrap_or_else(|| "not stated".into());
    let fits = board.models.is_empty()
        || board.models.iter().any(|prefix| found.starts_with(prefix.as_str()));
    let verdict = if fits { Verdict::Good } else { Verdict::Note };
    let expected = board.models.join(" or ");
    check(
        "model",
        verdict,
        expected,
        found,
        "if this is another board, name it with --board".into(),
    )
}

fn processor(board: &Board, machine: &Machine) -> Vec<Check> {
    let threads = board.defaults.threads;
    let cores = check(
        "cores",
        if machine.cores >= board.cores() {
            Verdict::Good
        } else if machine.cores >= threads {
            Verdict::Note
        } else {
            Verdict::Problem
        },
        board.cores().to_string(),
        machine.cores.to_string(),
        format!(
            "use --threads {}, and look for cores that are off in /sys/devices/system/cpu/online",
            machine.cores.max(1)
        ),
    );
    let fast = &board.cpu[0];
    let missing: Vec<&str> = fast
        .features
        .iter()
        .map(String::as_str)
        .filter(|name| !machine.features.contains(*name))
        .collect();
    let features = check(
        "processor features",
        if missing.is_empty() { Verdict::Good } else { Verdict::Note },
        fast.features.join(" "),
        if missing.is_empty() { "all there".into() } else { format!("without {}", missing.join(" ")) },
        "slower kernels are used and pictures stay the same; an old kernel or a virtual machine may hide features".into(),
    );
    let clock = machine.mhz.map(|mhz| {
        check(
            "clock",
            if mhz * 100 >= fast.mhz * 95 { Verdict::Good } else { Verdict::Note },
            format!("{} MHz", fast.mhz),
            format!("{mhz} MHz"),
            "estimates will be too short; look at the governor and at power and temperature limits"
                .into(),
        )
    });
    [cores, features].into_iter().chain(clock).collect()
}

fn memory(board: &Board, machine: &Machine) -> Vec<Check> {
    let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
    let mut checks = Vec::new();
    if let Some(ram) = machine.ram_bytes {
        // Linux, its crash kernel and a GPU's share take up to a quarter of a small board's memory.
        let enough = ram >= board.ram_bytes / 4 * 3;
        checks.push(check(
            "RAM",
            if enough { Verdict::Good } else { Verdict::Note },
            mebibytes(board.ram_bytes),
            mebibytes(ram),
            "give the GPU less (gpu_mem on a Raspberry Pi) or choose a smaller --budget".into(),
        ));
    }
    if let Some(available) = machine.available_bytes {
        let budget = board.defaults.budget_bytes;
        checks.push(check(
            "memory for the budget",
            if available >= budget { Verdict::Good } else { Verdict::Problem },
            mebibytes(budget),
            format!("{} available", mebibytes(available)),
            format!("stop other programs or use --budget {}M", (available / 2) >> 20),
        ));
    }
    checks.push(check(
        "memory limits",
        if machine.memory_cgroup { Verdict::Good } else { Verdict::Note },
        "memory cgroup".into(),
        if machine.memory_cgroup { "memory cgroup" } else { "no memory cgroup" }.into(),
        "the budget holds without it, but systemd's MemoryMax does not; add cgroup_enable=memory to the kernel's command line".into(),
    ));
    checks
}

fn device(accelerator: &plantain_boards::Accelerator, machine: &Machine) -> Check {
    let node = accelerator.nodes.iter().find(|node| machine.exists(node));
    let library = accelerator.libraries.iter().find_map(|name| machine.library(name));
    let (found, advice) = match (node, &library) {
        (Some(node), Some(path)) => (format!("{node} and {}", path.display()), ""),
        (None, Some(_)) => (
            "no device file".into(),
            "load its kernel driver; until then everything runs on the CPU",
        ),
        (Some(_), None) => {
            ("no library".into(), "install its library; until then everything runs on the CPU")
        }
        (None, None) => (
            "neither device file nor library".into(),
            "install its driver and library; until then everything runs on the CPU",
        ),
    };
    let verdict = if advice.is_empty() { Verdict::Good } else { Verdict::Note };
    let expected =
        format!("{} and {}", accelerator.nodes.join(" or "), accelerator.libraries.join(" or "));
    check(&format!("accelerator {}", accelerator.name), verdict, expected, found, advice.into())
}

fn sensors(board: &Board, machine: &Machine) -> Vec<Check> {
    let mut checks = Vec::new();
    for (what, patterns) in
        [("temperature", &board.sensors.thermal), ("power", &board.sensors.power)]
    {
        if patterns.is_empty() {
            continue;
        }
        let files: Vec<_> = patterns.iter().flat_map(|pattern| machine.matching(pattern)).collect();
        let reading = files.iter().find_map(|file| std::fs::read_to_string(file).ok());
        let found =
            match (what, reading.as_deref().and_then(|text| text.trim().parse::<i64>().ok())) {
                ("temperature", Some(value)) => {
                    format!("{}.{} C", value / 1000, value.abs() % 1000 / 100)
                }
                (_, Some(value)) => format!("{value}"),
                (_, None) => "no sensor".into(),
            };
        let verdict = if reading.is_some() { Verdict::Good } else { Verdict::Note };
        let advice = format!("{what} will be missing in the status that is published");
        checks.push(check(what, verdict, patterns.join(" or "), found, advice));
    }
    checks
}

#[cfg(test)]
mod tests;
