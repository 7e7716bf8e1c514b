//! The process around the event loop: lock, signals, watchdog, start and end.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use sd_notify::NotifyState;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::app::{App, PAYLOAD_VERSION};
use super::clock::Arrivals;
use super::config::{Config, ConfigError, Layer};
use super::drawer::{Artist, Drawer};
use super::limits::{DenyWords, Usage};
use super::publish::Publishing;
use super::sensors::Sensors;
use super::status::{Counters, Model};
use super::{logger, metrics};
use crate::job::answers::Answers;
use crate::job::journal::Journal;
use crate::job::{Machine, MachineLimits};
use crate::mqtt::client::Connection;
use crate::mqtt::message::PromptRules;
use crate::mqtt::tls::client_config;
use crate::mqtt::topic::Topics;
use crate::size;

/// How long the last messages may take when the daemon ends.
const GOODBYE: Duration = Duration::from_secs(3);

/// Where the settings came from, so that SIGHUP can read them again.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Flags and environment.
    pub flags: Layer,
    /// The TOML file.
    pub file: Option<PathBuf>,
}

impl Sources {
    /// The settings as they stand now, checked.
    ///
    /// # Errors
    /// If the file is not usable or a value cannot be.
    pub fn settle(&self) -> anyhow::Result<Config> {
        let file = self.file.as_deref().map(Layer::read).transpose()?.unwrap_or_default();
        let config = self.flags.clone().over(file).settle();
        config.check()?;
        Ok(config)
    }
}

/// What the daemon is made of beside its settings.
pub struct Parts {
    /// Draws.
    pub artist: Box<dyn Artist>,
    /// What it draws with.
    pub model: Model,
    /// Of this machine.
    pub sensors: Sensors,
}

/// What bounds and fills in prompts, as configured.
///
/// # Errors
/// If the configured size is none.
pub fn rules(config: &Config, model: &Model) -> Result<PromptRules, ConfigError> {
    let size = |text: &str| {
        size::parse(text, &model.sizes).map_err(|need| {
            let value = text.to_owned();
            ConfigError::Value { key: "size", value, need }
        })
    };
    Ok(PromptRules {
        prompt_bytes_max: config.prompt_bytes_max as usize,
        pixels_max: config.pixels_max,
        steps_max: config.steps_max,
        count_max: config.count_max,
        format: config.format,
        style: (!config.style.is_empty()).then(|| config.style.clone()),
        steps: (config.steps > 0).then_some(config.steps),
        guidance: (config.guidance > 0.0).then_some(config.guidance),
        size: (!config.size.is_empty()).then(|| size(&config.size)).transpose()?,
        palette: config.palette.clone(),
        dither: config.dither,
        preview: config.preview,
        sizes: model.sizes.clone(),
    })
}

/// Reads the deny list, if there is one.
///
/// # Errors
/// If its file cannot be read: an operator's list must not be passed over.
pub fn deny_words(config: &Config) -> anyhow::Result<DenyWords> {
    let path = &config.deny_words_file;
    if path.as_os_str().is_empty() {
        return Ok(DenyWords::default());
    }
    DenyWords::read(path)
        .with_context(|| format!("deny_words_file {} cannot be read", path.display()))
}

/// The password, from where it is configured.
///
/// # Errors
/// If its file cannot be read.
pub fn password(config: &Config) -> anyhow::Result<Option<String>> {
    let path = &config.password_file;
    if path.as_os_str().is_empty() {
        return Ok((!config.password.is_empty()).then(|| config.password.clone()));
    }
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("password_file {} cannot be read", path.display()))?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Takes the state folder for this process.
///
/// # Errors
/// If it cannot be made, or another daemon has it.
fn lock(state_dir: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(state_dir)
        .with_context(|| format!("the state folder {} cannot be made", state_dir.display()))?;
    let path = state_dir.join("lock");
    let file = File::create(&path)
        .with_context(|| format!("the lock {} cannot be made", path.display()))?;
    file.try_lock().map_err(|_| {
        anyhow::anyhow!(
            "another daemon uses {}; stop it or choose another --state-dir",
            state_dir.display()
        )
    })?;
    Ok(file)
}

/// Runs the daemon until SIGTERM, SIGINT or the end of `until`, which runs beside it.
///
/// # Errors
/// If it cannot start: state folder, journal, TLS files, threads; or as `until` ends. Once it runs it stays.
pub fn run(
    sources: &Sources,
    config: Config,
    parts: Parts,
    until: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let _lock = lock(&config.state_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(sources, config, parts, until))
}

/// Checks what can be checked without running: files that the settings name.
///
/// # Errors
/// If one is not usable.
pub fn check(config: &Config) -> anyhow::Result<()> {
    deny_words(config)?;
    password(config)?;
    let (_, _, is_tls) = config.broker_address()?;
    if is_tls {
        client_config(&config.ca_file, &config.client_cert, &config.client_key)?;
    }
    Ok(())
}

async fn serve(
    sources: &Sources,
    config: Config,
    parts: Parts,
    until: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tokio::pin!(until);
    let mut app = start(config, parts)?;
    let (metrics_text, metrics_seen) = watch::channel(String::new());
    if app.config.metrics_port != 0 {
        metrics::listen(app.config.metrics_port, metrics_seen).await?;
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut watchdog = Watchdog::new();
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    app.draw_next();
    loop {
        tokio::select! {
            event = app.connection.next() => match event {
                Some(event) => app.on_connection(event),
                None => anyhow::bail!("the connection's task has ended"),
            },
            report = app.drawer.report() => match report {
                Some(report) => app.on_report(report),
                None => anyhow::bail!("the drawer has ended"),
            },
            _ = tick.tick() => {
                app.tick();
                watchdog.feed(app.machine.drawing().is_some(), app.drawer.beats());
                metrics_text.send_replace(app.metrics());
            }
            _ = hangup.recv() => reload(&mut app, sources),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            ended = &mut until => {
                end(app).await;
                return ended;
            }
        }
    }
    end(app).await;
    Ok(())
}

fn start(config: Config, parts: Parts) -> anyhow::Result<App> {
    let Parts { artist, model, sensors } = parts;
    let limits = MachineLimits {
        queue_length: config.queue_length as usize,
        answers_max: config.answers_max as usize,
        answers_bytes_max: Config::bytes(&config.answers_bytes_max),
    };
    let (journal, records) =
        Journal::open(&config.state_dir, Config::bytes(&config.journal_bytes_max))?;
    let mut machine = Machine::replay(limits, records);
    let answers = Answers::open(&config.state_dir).with_context(|| {
        format!("the folder of answers in {} cannot be made", config.state_dir.display())
    })?;
    for name in machine.answered() {
        let whole =
            machine.answer_of(&name).is_some_and(|(_, answer)| answers.holds(&name, answer));
        if !whole {
            log::warn!("the pictures of job {name} were damaged by a crash");
            machine.lose_answer(&name);
        }
    }
    answers.sweep(|job| machine.knows(job)).context("the folder of answers cannot be read")?;
    if !machine.queue().is_empty() {
        log::info!("{} jobs wait from before the restart", machine.queue().len());
    }
    let topics = Topics::new(&config.base, &config.device, &config.group);
    let will = json!({"version": PAYLOAD_VERSION, "state": "offline"}).to_string().into_bytes();
    let connection = Connection::open(&config, password(&config)?, (topics.status(), will))?;
    Ok(App {
        rules: rules(&config, &model)?,
        deny: deny_words(&config)?,
        usage: Usage::new(config.rate_per_minute, config.quota_per_day),
        topics,
        machine,
        journal,
        answers,
        arrivals: Arrivals::default(),
        connection,
        drawer: Drawer::start(artist)?,
        publishing: Publishing::default(),
        held: HashMap::new(),
        postponed: VecDeque::new(),
        packet_bytes_max: None,
        counters: Counters::default(),
        model,
        sensors,
        started: Instant::now(),
        status_at: Instant::now(),
        ending: false,
        serial: 0,
        config,
    })
}

/// Reads the settings again and takes over what can change while it runs.
fn reload(app: &mut App, sources: &Sources) {
    let _ = sd_notify::notify(&[NotifyState::Reloading]);
    let fresh = sources
        .settle()
        .and_then(|config| Ok((deny_words(&config)?, rules(&config, &app.model)?, config)));
    match fresh {
        Ok((deny, rules, config)) => {
            app.rules = rules;
            app.deny = deny;
            app.usage = Usage::new(config.rate_per_minute, config.quota_per_day);
            logger::set_level(&config.log_level);
            let kept = Config {
                broker: app.config.broker.clone(),
                device: app.config.device.clone(),
                base: app.config.base.clone(),
                group: app.config.group.clone(),
                client_id: app.config.client_id.clone(),
                state_dir: app.config.state_dir.clone(),
                home_assistant: app.config.home_assistant,
                home_assistant_prefix: app.config.home_assistant_prefix.clone(),
                ..config
            };
            app.config = kept;
            log::info!(
                "the configuration is read again; broker, names, pack, budget and folders change with a restart"
            );
        }
        Err(error) => log::error!("the configuration stays as it was: {error:#}"),
    }
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    app.publish_status();
}

/// Stops the drawer (its job waits in the journal for the next start) and says goodbye to the broker.
async fn end(mut app: App) {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    app.ending = true;
    app.drawer.stop();
    app.publish_status();
    let deadline = Instant::now() + GOODBYE;
    while app.connection.is_connected() && app.connection.backlog() > 0 && Instant::now() < deadline
    {
        settle(&mut app).await;
    }
    app.connection.disconnect();
    while app.connection.is_connected() && Instant::now() < deadline {
        settle(&mut app).await;
    }
    log::info!("stopped; {} jobs wait for the next start", app.machine.queue().len());
}

/// Handles one event of the connection, or gives it a moment.
async fn settle(app: &mut App) {
    let event = tokio::time::timeout(Duration::from_millis(20), app.connection.next()).await;
    if let Ok(Some(event)) = event {
        app.on_connection(event);
    }
}

/// Tells systemd that the daemon lives, as long as it does: idle, or drawing with steps that end.
struct Watchdog {
    wanted: bool,
    beats: u64,
    was_drawing: bool,
}

impl Watchdog {
    fn new() -> Self {
        Watchdog { wanted: sd_notify::watchdog_enabled().is_some(), beats: 0, was_drawing: false }
    }

    fn feed(&mut self, drawing: bool, beats: u64) {
        let alive = !drawing || !self.was_drawing || beats != self.beats;
        (self.beats, self.was_drawing) = (beats, drawing);
        if self.wanted && alive {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
    }
}
