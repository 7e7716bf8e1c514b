//! The machine's share: budget, threads, and a board's defaults for them.

use plantain_boards::Board;

use super::Refusal;

/// Arguments that several commands share.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct MachineChoice {
    /// Memory that the whole process may take, such as 64M (MiB) [default: the board's, else as much as is fast]
    #[arg(long, value_name = "SIZE")]
    pub budget: Option<String>,
    /// Threads that compute [default: the board's, else one a CPU]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: Option<u32>,
    /// Board whose defaults hold, see `plantain boards`, or a profile of your own: FILE.toml
    #[arg(long, value_name = "NAME", env = "PLANTAIN_BOARD")]
    pub board: Option<String>,
}

/// The argument of the commands that draw.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PinChoice {
    /// Keep each thread on a core of its own: numbers such as 0-3 or 4,5, or auto for the fastest ones
    #[arg(long, value_name = "CORES")]
    pub pin: Option<String>,
}

impl PinChoice {
    /// The cores for the threads of a machine, as many as threads; none without the argument.
    ///
    /// # Errors
    /// A [`Refusal`] if they are no cores, or not as many as threads.
    pub fn cores(&self, machine: &Machine) -> anyhow::Result<Vec<usize>> {
        let Some(text) = &self.pin else { return Ok(Vec::new()) };
        let cores = crate::cores::choose(text, machine.threads);
        Ok(cores.map_err(|sentence| Refusal(format!("--pin: {sentence}")))?)
    }
}

/// What holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// Of the whole process.
    pub budget_bytes: Option<u64>,
    /// That compute.
    pub threads: Option<usize>,
    /// The board, if one was named.
    pub board: Option<Board>,
}

impl MachineChoice {
    /// What holds: as named, else the board's.
    ///
    /// # Errors
    /// A [`Refusal`] if the budget is no size or the board is unknown.
    pub fn settle(&self) -> anyhow::Result<Machine> {
        let board = match &self.board {
            Some(name) => {
                Some(plantain_boards::load(name).map_err(|error| Refusal(error.to_string()))?)
            }
            None => None,
        };
        let budget_bytes = match &self.budget {
            Some(text) => Some(
                plantain::units::parse_bytes(text)
                    .map_err(|error| Refusal(format!("--budget: {error}")))?,
            ),
            None => board.as_ref().map(|board| board.defaults.budget_bytes),
        };
        let threads = self
            .threads
            .or(board.as_ref().map(|board| board.defaults.threads))
            .map(|threads| threads as usize);
        Ok(Machine { budget_bytes, threads, board })
    }
}
