//! A real broker on this machine, for the emulated board to talk to.

use super::watch::Watch;
use crate::command::{Run, find_program};
use anyhow::{Context, Result, bail};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where to get it.
const ADVICE: &str = "install mosquitto and mosquitto-clients (Debian's names of them)";

/// A running mosquitto; it is stopped when this is dropped.
pub struct Broker {
    /// Its port on 127.0.0.1, which the emulated board reaches as 10.0.2.2.
    pub port: u16,
    child: Child,
}

impl Broker {
    /// Starts a broker that anyone on this machine may use, on a free port.
    pub fn start(folder: &Path) -> Result<Self> {
        let program = find_program("mosquitto").with_context(|| format!("no broker; {ADVICE}"))?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let settings = folder.join("mosquitto.conf");
        std::fs::write(&settings, format!("listener {port} 127.0.0.1\nallow_anonymous true\n"))?;
        let child = Command::new(program)
            .arg("-c")
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("the broker could not be started; {ADVICE}"))?;
        let broker = Self { port, child };
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if Instant::now() > end {
                bail!("the broker does not listen on port {port} after 10 s");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(broker)
    }

    /// Publishes with quality of service 1.
    pub fn publish(&self, topic: &str, message: &str) -> Result<()> {
        Run::new("mosquitto_pub")
            .args(["-p", &self.port.to_string(), "-V", "5", "-q", "1", "-t", topic, "-m", message])
            .output()
            .map(|_| ())
    }

    /// Every message of some topics as a line: topic, then payload.
    pub fn subscribe(&self, topics: &[&str]) -> Result<Watch> {
        let mut command = self.listener();
        command.args(["-v", "-q", "1"]);
        for topic in topics {
            command.args(["-t", topic]);
        }
        Watch::start(command, "mosquitto_sub", ADVICE)
    }

    /// The next payload of a topic, byte by byte.
    pub fn next_payload(&self, topic: &str, file: &Path) -> Result<Payload> {
        let out = std::fs::File::create(file)?;
        let mut command = self.listener();
        command.args(["-t", topic, "-q", "1", "-C", "1", "-N"]).stdin(Stdio::null()).stdout(out);
        let child = command.spawn().with_context(|| format!("no MQTT client; {ADVICE}"))?;
        Ok(Payload { child, file: file.into() })
    }

    fn listener(&self) -> Command {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-p", &self.port.to_string(), "-V", "5"]);
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // If it is gone already there is nothing to stop.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A payload that is waited for.
pub struct Payload {
    child: Child,
    file: PathBuf,
}

impl Payload {
    /// Its bytes, as soon as they are there.
    pub fn wait(mut self, patience: Duration) -> Result<Vec<u8>> {
        let end = Instant::now() + patience;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > end {
                bail!("no message came in {patience:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        std::fs::read(&self.file).with_context(|| format!("{} cannot be read", self.file.display()))
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        // It ends by itself after one message.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole() {
        if find_program("mosquitto").is_none() {
            println!("left out: {ADVICE}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(dir.path()).unwrap();
        let mut lines = broker.subscribe(&["a/line"]).unwrap();
        let payload = broker.next_payload("a/bytes", &dir.path().join("payload")).unwrap();
        let patience = Duration::from_secs(10);
        let end = Instant::now() + patience;
        // Neither subscriber says when it is there: publish until both have heard.
        loop {
            broker.publish("a/line", "{\"x\": 1}").unwrap();
            broker.publish("a/bytes", "two\nlines\n").unwrap();
            lines.listen(Duration::from_millis(200));
            if !lines.log().is_empty() || Instant::now() > end {
                break;
            }
        }
        assert_eq!(lines.log()[0], "a/line {\"x\": 1}");
        broker.publish("a/bytes", "two\nlines\n").unwrap();
        assert_eq!(payload.wait(patience).unwrap(), b"two\nlines\n");
    }
}
