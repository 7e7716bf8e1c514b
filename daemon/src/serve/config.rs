//! The daemon's configuration: every key is a flag of `plantain serve`, an environment variable and a key of the TOML file.
//!
//! One definition serves all three: the doc comment of a field is its `--help` text and its comment in
//! `--print-config`. A flag wins over the environment, that over the file, that over the default.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use plantain::image::eink::Palette;
use serde::{Deserialize, Serialize};

use crate::encode::DitherChoice;
use crate::job::{Format, QUEUE_LENGTH_MAX};

macro_rules! config {
    ($( $(#[doc = $doc:literal])+ $(#[cfg_arg($($arg:tt)*)])? $name:ident : $type:ty = $default:expr; )*) => {
        /// One source of settings: what a flag, the environment or a file states.
        #[derive(Clone, Debug, Default, clap::Args, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Layer {
            $( $(#[doc = $doc])+ #[arg(long, $($($arg)*)?)] pub $name: Option<$type>, )*
        }

        /// All settings, checked by [`Config::check`].
        #[derive(Clone, Debug, Serialize)]
        pub struct Config {
            $( $(#[doc = $doc])+ pub $name: $type, )*
        }

        impl Layer {
            /// The settings of this layer and, where it has none, of the one below.
            pub fn over(self, below: Layer) -> Layer {
                Layer { $( $name: self.$name.or(below.$name), )* }
            }

            /// The settings, with defaults where no layer has one.
            pub fn settle(self) -> Config {
                Config { $( $name: self.$name.unwrap_or_else(|| $default), )* }
            }
        }
    };
}

config! {
    /// Broker: mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS; the port may be left out
    #[cfg_arg(env = "PLANTAIN_BROKER")]
    broker: String = "mqtt://127.0.0.1:1883".into();
    /// This device's name in topics: letters, digits, - and _
    #[cfg_arg(env = "PLANTAIN_DEVICE")]
    device: String = "plantain".into();
    /// First part of every topic
    base: String = "plantain".into();
    /// Group whose daemons share the prompts of BASE/GROUP/prompt; empty: none
    group: String = String::new();
    /// MQTT client id; empty: plantain-DEVICE
    client_id: String = String::new();
    /// User name at the broker; empty: none
    #[cfg_arg(env = "PLANTAIN_USERNAME")]
    username: String = String::new();
    /// Password at the broker; prefer the environment or password-file
    #[cfg_arg(env = "PLANTAIN_PASSWORD", hide_env_values = true)]
    password: String = String::new();
    /// File that holds the password; empty: none
    password_file: PathBuf = PathBuf::new();
    /// PEM file of certificate authorities that may vouch for the broker; empty: the system's
    ca_file: PathBuf = PathBuf::new();
    /// PEM file of this client's certificate; empty: none
    client_cert: PathBuf = PathBuf::new();
    /// PEM file of this client's private key; empty: none
    client_key: PathBuf = PathBuf::new();
    /// Seconds between keep-alive pings
    keep_alive_seconds: u16 = 30;
    /// Seconds for which the broker keeps this client's session, and prompts, while it is away
    session_expiry_seconds: u32 = 7 * 24 * 3600;
    /// Longest pause between two attempts to reconnect
    reconnect_seconds_max: u32 = 30;
    /// Pack to draw with; empty: the bundled one
    #[cfg_arg(env = "PLANTAIN_PACK")]
    pack: PathBuf = PathBuf::new();
    /// Memory that the whole process may take, such as 64M; empty: the board's default
    budget: String = String::new();
    /// Threads that draw; 0: the board's default
    threads: u32 = 0;
    /// Cores to keep the drawing threads on, one each: numbers such as 0-3, or auto for the fastest ones; empty: any
    pin: String = String::new();
    /// Board for defaults and sensors, see `plantain boards`, or a profile FILE.toml; empty: generic
    #[cfg_arg(env = "PLANTAIN_BOARD")]
    board: String = String::new();
    /// Folder of the journal, the kept answers and the lock
    #[cfg_arg(env = "STATE_DIRECTORY")]
    state_dir: PathBuf = PathBuf::from("plantain-state");
    /// Prompts that may wait; the next one is refused
    queue_length: u32 = 16;
    /// Answers that are kept for repeated prompts
    answers_max: u32 = 256;
    /// Bytes that kept answers may take on disk
    answers_bytes_max: String = "256M".into();
    /// Bytes that the journal may take on disk
    journal_bytes_max: String = "4M".into();
    /// Longest prompt in bytes
    prompt_bytes_max: u32 = 2000;
    /// Most pixels of one picture
    pixels_max: u64 = 1024 * 1024;
    /// Most denoising steps of one picture
    steps_max: u32 = 50;
    /// Most pictures of one prompt
    count_max: u32 = 8;
    /// Prompts that one client may send a minute; 0: any number
    rate_per_minute: u32 = 60;
    /// Pictures that one client may have drawn a day; 0: any number
    quota_per_day: u32 = 0;
    /// Prefixes, separated by commas, of response topics that prompts may name; empty: BASE/
    response_prefixes: String = String::new();
    /// File of words, one a line, that a prompt must not contain; empty: none
    deny_words_file: PathBuf = PathBuf::new();
    /// Command that reads a prompt on standard input and refuses it by a non-zero exit; empty: none
    deny_command: String = String::new();
    /// Seconds that the deny command may take; after that the prompt is refused
    deny_seconds_max: u32 = 5;
    /// Encoding of pictures if the prompt names none
    #[cfg_arg(value_enum)]
    format: Format = Format::Png;
    /// Colours if the prompt names none: bw, acep7, or 2 to 16 as #rrggbb,#rrggbb; empty: all
    palette: String = String::new();
    /// How colours between those of a palette are approached
    #[cfg_arg(value_enum)]
    dither: DitherChoice = DitherChoice::default();
    /// Size if the prompt names none: WxH, small, default, large, portrait or landscape; empty: the pack's
    size: String = String::new();
    /// Send the picture as it stands with each step's progress, if the prompt does not say
    preview: bool = false;
    /// Style if the prompt names none; empty: the pack's
    style: String = String::new();
    /// Denoising steps if the prompt names none; 0: the pack's
    steps: u32 = 0;
    /// Run the denoiser at every so many steps only and estimate between: faster, and another picture; 0: off
    step_cache: u32 = 0;
    /// Guidance scale if the prompt names none; 0: the pack's
    guidance: f32 = 0.0;
    /// Write the prompt into pictures, beside the mark that says they are generated
    include_prompt: bool = true;
    /// Announce this device to Home Assistant
    home_assistant: bool = true;
    /// Home Assistant's discovery prefix
    home_assistant_prefix: String = "homeassistant".into();
    /// Seconds between status messages
    status_seconds: u32 = 30;
    /// Port on 127.0.0.1 for Prometheus metrics; 0: none
    metrics_port: u16 = 0;
    /// error, warn, info, debug or trace
    log_level: String = "info".into();
    /// text or json
    log_format: String = "text".into();
    /// Write prompts into the log
    log_prompts: bool = false;
}

/// Why a configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {} cannot be read: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not this configuration.
    #[error("the configuration {} is not usable: {message}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with the line.
        message: String,
    },
    /// A value cannot be.
    #[error("{key} is {value:?}; {need}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it must be.
        need: String,
    },
}

impl Layer {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// [`ConfigError`] if it cannot be read, is no TOML, or has an unknown key.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|error| {
            let line = error
                .span()
                .map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let place = line.map_or(String::new(), |line| format!("line {line}: "));
            ConfigError::Parse {
                path: path.to_owned(),
                message: format!("{place}{}", error.message()),
            }
        })
    }
}

impl Config {
    /// Checks every value that can be wrong by itself.
    ///
    /// # Errors
    /// [`ConfigError::Value`] of the first that is.
    pub fn check(&self) -> Result<(), ConfigError> {
        let value = |key, value: String, need: &str| {
            Err(ConfigError::Value { key, value, need: need.to_owned() })
        };
        self.broker_address()?;
        for (key, name) in [("device", &self.device), ("base", &self.base), ("group", &self.group)]
        {
            let slash = key == "base";
            let fine =
                |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || (slash && c == '/');
            if (name.is_empty() && key != "group") || name.len() > 64 || !name.chars().all(fine) {
                return value(key, name.clone(), "use 1 to 64 letters, digits, - and _");
            }
        }
        if !self.group.is_empty() && self.group == self.device {
            return value("group", self.group.clone(), "choose a name that is no device's");
        }
        if self.client_cert.as_os_str().is_empty() != self.client_key.as_os_str().is_empty() {
            let key = self.client_key.display().to_string();
            return value("client_key", key, "set client_cert and client_key together or neither");
        }
        if !self.password.is_empty() && !self.password_file.as_os_str().is_empty() {
            return value(
                "password_file",
                self.password_file.display().to_string(),
                "set password or password_file, not both",
            );
        }
        if !(1..=QUEUE_LENGTH_MAX as u32).contains(&self.queue_length) {
            return value(
                "queue_length",
                self.queue_length.to_string(),
                &format!("choose 1 to {QUEUE_LENGTH_MAX}"),
            );
        }
        for (key, number) in [
            ("answers_max", u64::from(self.answers_max)),
            ("prompt_bytes_max", u64::from(self.prompt_bytes_max)),
            ("pixels_max", self.pixels_max),
            ("steps_max", u64::from(self.steps_max)),
            ("count_max", u64::from(self.count_max)),
            ("status_seconds", u64::from(self.status_seconds)),
            ("reconnect_seconds_max", u64::from(self.reconnect_seconds_max)),
            ("deny_seconds_max", u64::from(self.deny_seconds_max)),
        ] {
            if number == 0 {
                return value(key, "0".into(), "choose 1 or more");
            }
        }
        if self.keep_alive_seconds < 5 {
            let seconds = self.keep_alive_seconds.to_string();
            return value("keep_alive_seconds", seconds, "choose 5 or more");
        }
        for (key, text) in [
            ("answers_bytes_max", &self.answers_bytes_max),
            ("journal_bytes_max", &self.journal_bytes_max),
            ("budget", &self.budget),
        ] {
            if !(key == "budget" && text.is_empty())
                && let Err(error) = plantain::units::parse_bytes(text)
            {
                return value(key, text.clone(), &error.to_string());
            }
        }
        if self.log_level.parse::<log::LevelFilter>().is_err() {
            return value(
                "log_level",
                self.log_level.clone(),
                "choose error, warn, info, debug or trace",
            );
        }
        if !["text", "json"].contains(&self.log_format.as_str()) {
            return value("log_format", self.log_format.clone(), "choose text or json");
        }
        if !self.palette.is_empty()
            && let Err(error) = Palette::parse(&self.palette)
        {
            return value("palette", self.palette.clone(), &error.to_string());
        }
        if !self.guidance.is_finite() || self.guidance < 0.0 {
            return value("guidance", self.guidance.to_string(), "choose 0 or more");
        }
        Ok(())
    }

    /// Host, port and whether TLS is spoken there.
    ///
    /// # Errors
    /// [`ConfigError::Value`] if the broker is no address.
    pub fn broker_address(&self) -> Result<(String, u16, bool), ConfigError> {
        let error = || ConfigError::Value {
            key: "broker",
            value: self.broker.clone(),
            need: "write mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS".into(),
        };
        let (scheme, rest) = self.broker.split_once("://").ok_or_else(error)?;
        let tls = match scheme {
            "mqtt" => false,
            "mqtts" => true,
            _ => return Err(error()),
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') || host.ends_with(']') => {
                (host, port.parse().map_err(|_| error())?)
            }
            _ => (rest, if tls { 8883 } else { 1883 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains(['/', '@', ' ']) {
            return Err(error());
        }
        Ok((host.to_owned(), port, tls))
    }

    /// The client id: as configured, or by the device's name.
    pub fn client_id(&self) -> String {
        if self.client_id.is_empty() {
            format!("plantain-{}", self.device)
        } else {
            self.client_id.clone()
        }
    }

    /// Bytes of a size that [`Config::check`] has accepted.
    pub fn bytes(text: &str) -> u64 {
        plantain::units::parse_bytes(text).unwrap_or(u64::MAX)
    }

    /// The settings as a TOML file with every key explained. The password is left out.
    pub fn print(&self) -> String {
        #[derive(clap::Parser)]
        struct Keys {
            #[command(flatten)]
            _layer: Layer,
        }
        let values = toml::Table::try_from(Config { password: String::new(), ..self.clone() })
            .unwrap_or_default();
        let mut text =
            String::from("# plantain serve. Each key is also a flag: broker is --broker.\n");
        for arg in Keys::command().get_arguments() {
            let key = arg.get_id().as_str();
            let Some(value) = values.get(key) else { continue };
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let line = toml::to_string(&toml::Table::from_iter([(key.to_owned(), value.clone())]))
                .unwrap_or_default();
            text.push_str(&format!("\n# {help}\n{line}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_settings_read_back_and_explain_every_key() {
        let config = Layer::default().settle();
        config.check().unwrap();
        let text = config.print();
        let again = toml::from_str::<Layer>(&text).unwrap().settle();
        assert_eq!(again.print(), text);
        let keys = text.lines().filter(|line| line.contains(" = ")).count();
        assert_eq!(text.lines().filter(|line| line.starts_with("# ")).count(), keys + 1);
        assert!(keys > 40);
    }

    #[test]
    fn flags_win_over_the_file() {
        let flags = Layer { device: Some("kitchen".into()), ..Layer::default() };
        let file: Layer = toml::from_str("device = \"hall\"\nqueue_length = 3").unwrap();
        let config = flags.over(file).settle();
        assert_eq!((config.device.as_str(), config.queue_length), ("kitchen", 3));
    }

    #[test]
    fn refuses_with_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        std::fs::write(&file, "device = \"a\"\nbrokr = \"x\"\n").unwrap();
        let error = Layer::read(&file).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("brokr"), "{error}");
        for (layer, key) in [
            (Layer { device: Some("a b".into()), ..Layer::default() }, "device"),
            (Layer { queue_length: Some(0), ..Layer::default() }, "queue_length"),
            (Layer { broker: Some("http://x".into()), ..Layer::default() }, "broker"),
            (Layer { budget: Some("much".into()), ..Layer::default() }, "budget"),
            (Layer { client_cert: Some("x".into()), ..Layer::default() }, "client_key"),
        ] {
            assert!(layer.settle().check().unwrap_err().to_string().starts_with(key));
        }
    }

    #[test]
    fn reads_broker_addresses() {
        let address = |broker: &str| {
            Layer { broker: Some(broker.into()), ..Layer::default() }.settle().broker_address().ok()
        };
        assert_eq!(address("mqtt://pi.local"), Some(("pi.local".into(), 1883, false)));
        assert_eq!(address("mqtts://pi.local:8884/"), Some(("pi.local".into(), 8884, true)));
        assert_eq!(address("mqtt://[::1]:1884"), Some(("::1".into(), 1884, false)));
        assert_eq!(address("mqtt://"), None);
        assert_eq!(address("pi.local:1883"), None);
    }
}
