//! `plantain boards`: the boards that plantain knows, and what it knows of each.

use super::Refusal;
use plantain_boards::Board;
use std::io::Write;

/// Arguments of `plantain boards`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show everything about this board: a name, an alias, or a profile of your own (FILE.toml)
    #[arg(value_name = "BOARD")]
    board: Option<String>,
    /// Print JSON: one object a board
    #[arg(long)]
    json: bool,
}

/// Prints the list, or one board.
///
/// # Errors
/// A [`Refusal`] if the board is unknown or its file is bad; else if standard output is closed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match &args.board {
        Some(name) => {
            let board = named(name)?;
            if args.json {
                writeln!(out, "{}", serde_json::to_string_pretty(&board)?)?;
            } else {
                write!(out, "{}", describe(&board))?;
            }
        }
        None if args.json => {
            writeln!(out, "{}", serde_json::to_string_pretty(plantain_boards::all())?)?;
        }
        None => write!(out, "{}", table(plantain_boards::all()))?,
    }
    Ok(())
}

/// The board of a `--board` argument.
///
/// # Errors
/// A [`Refusal`] with the nearest names, or with the first thing that is wrong with a file.
pub fn named(name: &str) -> anyhow::Result<Board> {
    plantain_boards::load(name).map_err(|error| Refusal(error.to_string()).into())
}

fn table(boards: &[Board]) -> String {
    let mut text = format!(
        "{:<17} {:>7} {:>7} {:>7}  {:<26} {}\n",
        "BOARD", "RAM", "BUDGET", "THREADS", "CORES", "ACCELERATORS"
    );
    for board in boards {
        let names: Vec<&str> = board.accelerators.iter().map(|a| a.name.as_str()).collect();
        let accelerators = if names.is_empty() { "-".into() } else { names.join(", ") };
        text += &format!(
            "{:<17} {:>7} {:>7} {:>7}  {:<26} {}\n",
            board.name,
            mebibytes(board.ram_bytes),
            mebibytes(board.defaults.budget_bytes),
            board.defaults.threads,
            cores(board),
            accelerators
        );
    }
    text
}

fn describe(board: &Board) -> String {
    let mut text = format!("{} ({})\n", board.title, board.name);
    let mut line = |name: &str, value: String| text += &format!("  {name:<13} {value}\n");
    if !board.aliases.is_empty() {
        line("also", board.aliases.join(", "));
    }
    line("target", board.triple.clone());
    line("RAM", mebibytes(board.ram_bytes));
    for cpu in &board.cpu {
        let features = cpu.features.join(" ");
        line("cores", format!("{} x {} at {} MHz ({features})", cpu.count, cpu.core, cpu.mhz));
    }
    line(
        "defaults",
        format!(
            "--budget {} --threads {}",
            mebibytes(board.defaults.budget_bytes),
            board.defaults.threads
        ),
    );
    line("memory copies", format!("{} MB/s with one core", board.memory.copy_mb_per_s));
    line(
        "storage",
        format!("{:?}, reads {} MB/s", board.storage.class, board.storage.read_mb_per_s),
    );
    for accelerator in &board.accelerators {
        line("accelerator", format!("{}: {}", accelerator.name, accelerator.title));
        line(
            "",
            format!(
                "{} through {}",
                accelerator.nodes.join(" or "),
                accelerator.libraries.join(", ")
            ),
        );
    }
    for path in &board.sensors.thermal {
        line("temperature", path.clone());
    }
    for path in &board.sensors.power {
        line("power", path.clone());
    }
    line("emulated as", format!("{} {}", board.qemu.machine, board.qemu.cpu));
    for source in &board.sources {
        line("source", format!("{}: {}", source.of.join(", "), source.from));
    }
    text
}

fn cores(board: &Board) -> String {
    let kinds: Vec<String> =
        board.cpu.iter().map(|cpu| format!("{}x{}", cpu.count, cpu.core)).collect();
    kinds.join(" ")
}

/// `512M`, as `--budget` reads it.
fn mebibytes(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 30) {
        format!("{}G", bytes >> 30)
    } else {
        format!("{}M", bytes >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_board_on_a_line() {
        let text = table(plantain_boards::all());
        assert_eq!(text.lines().count(), plantain_boards::all().len() + 1);
        let zero = text.lines().find(|line| line.starts_with("rpi-zero2w ")).unwrap();
        assert!(zero.contains("512M") && zero.contains("4xcortex-a53"), "{zero}");
    }

    #[test]
    fn one_board_is_described_with_its_sources() {
        let text = describe(&named("rock-5b").unwrap());
        for word in ["Radxa ROCK 5B (rock-5b)", "librknnrt.so", "source", "--budget 1G --threads 4"]
        {
            assert!(text.contains(word), "{word} in {text}");
        }
    }

    #[test]
    fn an_unknown_board_is_refused() {
        let error = named("rpi-zero3w").unwrap_err();
        assert!(error.is::<Refusal>() && error.to_string().contains("rpi-zero2w"), "{error}");
    }

    #[test]
    fn sizes_are_what_budget_reads() {
        assert_eq!(mebibytes(512 << 20), "512M");
        assert_eq!(mebibytes(4 << 30), "4G");
        assert_eq!(mebibytes(1536 << 20), "1536M");
    }
}
