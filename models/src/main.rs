//! `plantain-pack`: ONNX networks to one int8 pack, on a laptop.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plantain-pack: {error}");
            ExitCode::FAILURE
        }
    }
}
