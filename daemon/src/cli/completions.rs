//! `plantain completions`: for the shell, and the man page.

use clap::CommandFactory;
use clap_complete::Shell;

/// Arguments of `plantain completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which shell, or `man` for the manual page
    #[arg(value_parser = ["bash", "zsh", "fish", "elvish", "powershell", "man"])]
    form: String,
}

/// Prints the completions or the manual page.
///
/// # Errors
/// If standard output is closed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut command = super::Cli::command();
    let mut out = std::io::stdout().lock();
    match args.form.parse::<Shell>() {
        Ok(shell) => clap_complete::generate(shell, &mut command, "plantain", &mut out),
        Err(_) => clap_mangen::Man::new(command).render(&mut out)?,
    }
    Ok(())
}
