//! Running other programs: each call is shown, each failure is one sentence.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// A program to run, with its arguments and environment.
pub struct Run {
    command: Command,
    shown: String,
}

impl Run {
    /// A program by name or path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let shown = program.as_ref().to_string_lossy().into_owned();
        Self { command: Command::new(program), shown }
    }

    /// The cargo that runs this tool.
    pub fn cargo() -> Self {
        let mut run = Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        run.shown = "cargo".into();
        run.dir(crate::workspace::root())
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.shown.push(' ');
        self.shown.push_str(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Sets one variable of the environment.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Sets several variables.
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        mut self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.command.envs(pairs);
        self
    }

    /// Runs in another folder.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Runs with its output shown; a failure is an error that names the command.
    pub fn run(mut self) -> Result<()> {
        println!("$ {}", self.shown);
        let status = self.command.status().with_context(|| not_started(&self.shown))?;
        if !status.success() {
            bail!("`{}` failed ({status})", self.shown);
        }
        Ok(())
    }

    /// Runs silently and returns what it printed; a failure carries its error output.
    pub fn output(mut self) -> Result<String> {
        let output =
            self.command.stdin(Stdio::null()).output().with_context(|| not_started(&self.shown))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("`{}` failed ({}): {}", self.shown, output.status, stderr.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs silently; true if it succeeded.
    pub fn succeeds(mut self) -> bool {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

fn not_started(shown: &str) -> String {
    let program = shown.split(' ').next().unwrap_or_default();
    format!("`{program}` could not be started; run `cargo xtask setup` or install it")
}

/// The full path of a program on PATH, if it is there.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_the_command_and_its_words() {
        let error = Run::new("sh").args(["-c", "echo no disk >&2; exit 3"]).output().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no disk") && text.contains("exit status: 3"), "{text}");
        let error = Run::new("no-such-program-here").arg("x").run().unwrap_err().to_string();
        assert!(error.contains("`no-such-program-here` could not be started"), "{error}");
    }

    #[test]
    fn output_is_returned() {
        let text = Run::new("sh").args(["-c", "echo $WORD"]).env("WORD", "leaf").output().unwrap();
        assert_eq!(text, "leaf\n");
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-here").is_none());
    }
}
