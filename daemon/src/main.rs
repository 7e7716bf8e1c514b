//! The `plantain` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    plantain_daemon::cli::main()
}
