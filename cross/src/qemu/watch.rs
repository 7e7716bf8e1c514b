//! A program in the background, watched line by line.

use crate::command::Run;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The running program; it is killed when this is dropped.
pub struct Watch {
    name: String,
    child: Child,
    lines: Receiver<String>,
    log: Vec<String>,
}

impl Watch {
    /// Starts a program; `name` is what errors call it, `advice` what to install where it is missing.
    pub fn start(mut command: Command, name: &str, advice: &str) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name} could not be started; {advice}"))?;
        let output = child.stdout.take().context("a piped program has an output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_string();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { name: name.into(), child, lines, log: Vec::new() })
    }

    /// Waits for a new line that contains all the words, and returns it.
    ///
    /// # Errors
    /// If the program ends first or the time runs out; the error ends with what was said last.
    pub fn wait_for(&mut self, words: &[&str], patience: Duration) -> Result<String> {
        let end = Instant::now() + patience;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.log.push(line.clone());
                    if words.iter().all(|word| line.contains(word)) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "{} did not say {words:?} in {patience:?}; its last words:\n{}",
                        self.name,
                        self.tail()
                    );
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{} ended before {words:?}; its last words:\n{}", self.name, self.tail());
                }
            }
        }
    }

    /// Waits until the program ends by itself, and takes in what it still says.
    pub fn wait_for_end(&mut self, patience: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + patience;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Disconnected) => return Ok(self.child.wait()?),
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "{} still runs after {patience:?}; its last words:\n{}",
                        self.name,
                        self.tail()
                    )
                }
            }
        }
    }

    /// Takes in what was said for a while; nothing need be.
    pub fn listen(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            self.log.push(line);
        }
    }

    /// Ends the program at once.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the program to end, or those that it has started where it only runs others, and waits until all have.
    ///
    /// # Errors
    /// If it does not end in time, or ends with an error.
    pub fn terminate(mut self, patience: Duration) -> Result<()> {
        let children = children(self.child.id());
        let asked = if children.is_empty() { vec![self.child.id().to_string()] } else { children };
        Run::new("kill").args(asked).output()?;
        let status = self.wait_for_end(patience)?;
        if !status.success() {
            bail!("{} ended with {status}; its last words:\n{}", self.name, self.tail());
        }
        Ok(())
    }

    /// Every line so far.
    pub fn log(&self) -> &[String] {
        &self.log
    }

    /// What the first line that has this prefix says after it.
    pub fn said(&self, prefix: &str) -> Option<&str> {
        self.log.iter().find_map(|line| Some(line.split_once(prefix)?.1.trim()))
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        self.log[self.log.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nothing to kill. What it started does not end with it.
        let children = children(self.child.id());
        if !children.is_empty() {
            Run::new("kill").arg("-KILL").args(children).succeeds();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Numbers of the processes that a process has started; none where the system does not tell.
fn children(parent: u32) -> Vec<String> {
    let listed = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    listed.unwrap_or_default().split_whitespace().map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn shell(script: &str) -> Watch {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Watch::start(command, "the shell", "install one").unwrap()
    }

    #[test]
    fn lines_are_waited_for() {
        let mut watch = shell("echo one; echo value: 7; echo three");
        assert_eq!(watch.wait_for(&["va", "7"], SOON).unwrap(), "value: 7");
        assert!(watch.wait_for_end(SOON).unwrap().success());
        assert_eq!(watch.said("value:"), Some("7"));
        assert_eq!(watch.log().len(), 3);
    }

    #[test]
    fn what_runs_others_ends_with_them() {
        let mut watch = shell("sleep 60 & echo $!; wait; echo ended");
        let number = watch.wait_for(&[""], SOON).unwrap();
        assert_eq!(children(watch.child.id()).concat(), number);
        watch.terminate(SOON).unwrap();
        assert!(!Run::new("kill").args(["-0", &number]).succeeds());
    }

    #[test]
    fn silence_and_early_ends_are_errors_with_last_words() {
        let error = shell("echo alas").wait_for(&["hello"], SOON).unwrap_err().to_string();
        assert!(error.contains("the shell ended before") && error.contains("alas"), "{error}");
        let error = shell("sleep 9").wait_for(&["x"], Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("did not say"), "{error}");
    }
}
