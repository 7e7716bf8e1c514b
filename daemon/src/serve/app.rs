//! The event loop's state, and what it does on each event of the connection; `intake` takes prompts,
//! `answering` answers them.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::clock::Arrivals;
use super::config::Config;
use super::drawer::Drawer;
use super::limits::{DenyWords, Usage};
use super::publish::Publishing;
use super::sensors::Sensors;
use super::status::{Counters, Model};
use crate::homeassistant;
use crate::job::answers::Answers;
use crate::job::journal::Journal;
use crate::job::{Cancelled, Machine, Outcome};
use crate::mqtt::client::{Connection, Delivery, Event, Message, Outbound};
use crate::mqtt::message::{PromptRules, SetMessage, parse_cancel};
use crate::mqtt::topic::{Incoming, Topics};

/// Version of every payload's layout.
pub const PAYLOAD_VERSION: u32 = 1;
/// Cancel requests with these words mean the job that is being drawn, or that and all that wait.
const CURRENT: &str = "current";
const ALL: &str = "all";

/// Everything that the daemon knows while it runs.
pub struct App {
    pub(super) config: Config,
    pub(super) topics: Topics,
    pub(super) rules: PromptRules,
    pub(super) deny: DenyWords,
    pub(super) usage: Usage,
    pub(super) machine: Machine,
    pub(super) journal: Journal,
    pub(super) answers: Answers,
    pub(super) arrivals: Arrivals,
    pub(super) connection: Connection,
    pub(super) drawer: Drawer,
    pub(super) publishing: Publishing,
    /// Group mode: prompts that are acknowledged when they are answered.
    pub(super) held: HashMap<String, Vec<Delivery>>,
    /// Group mode: prompts that came while the queue was full. A broker may send more than the receive maximum after a reconnect.
    pub(super) postponed: VecDeque<Message>,
    pub(super) packet_bytes_max: Option<u32>,
    pub(super) counters: Counters,
    pub(super) model: Model,
    pub(super) sensors: Sensors,
    pub(super) started: Instant,
    pub(super) status_at: Instant,
    pub(super) ending: bool,
    pub(super) serial: u64,
}

impl App {
    /// Handles what happened on the connection.
    pub fn on_connection(&mut self, event: Event) {
        match event {
            Event::Connected { packet_bytes_max } => self.connected(packet_bytes_max),
            Event::Message(message) => self.message(*message),
            Event::Sent(token, at) => {
                if let Some(ready) = self.publishing.sent(token) {
                    let passed = at.saturating_duration_since(ready);
                    self.counters.publish_ms.add(passed.as_secs_f64() * 1e3);
                }
            }
            Event::Delivered(token) => {
                if let Some(job) = self.publishing.delivered(token) {
                    self.published(&job);
                }
            }
            Event::Lost(reason) => {
                self.publishing.clear();
                self.held.clear();
                self.postponed.clear();
                if !self.ending {
                    log::warn!("no connection to {}: {reason}", self.config.broker);
                }
            }
        }
    }

    fn connected(&mut self, packet_bytes_max: Option<u32>) {
        self.packet_bytes_max = packet_bytes_max;
        self.counters.connections += 1;
        log::info!("connected to {} as {}", self.config.broker, self.config.client_id());
        // In a group the receive maximum is full of prompts that are held; what comes at most once is not counted in it.
        let in_group = self.topics.group_filter().is_some();
        self.connection.subscribe(&self.topics.prompt(), false);
        for filter in [self.topics.cancel(), self.topics.set()] {
            self.connection.subscribe(&filter, in_group);
        }
        if let Some(filter) = self.topics.group_filter() {
            self.connection.subscribe(filter, false);
        }
        if self.config.home_assistant {
            let filter = format!("{}/status", self.config.home_assistant_prefix);
            self.connection.subscribe(&filter, in_group);
            self.announce();
        }
        self.publish_status();
        for job in self.machine.unpublished() {
            self.publish_answer(&job, None);
        }
    }

    fn announce(&mut self) {
        let (topic, payload) = homeassistant::discovery(&self.config, &self.topics, &self.model);
        self.connection.publish(Outbound {
            topic,
            payload: payload.to_string().into_bytes(),
            retain: true,
            content_type: Some("application/json"),
            ..Outbound::default()
        });
    }

    fn message(&mut self, message: Message) {
        match self.topics.classify(&message.topic, &self.config.home_assistant_prefix) {
            Some(Incoming::Prompt | Incoming::GroupPrompt) if message.retained => {
                self.counters.ignored += 1;
                log::warn!("a retained prompt is ignored; clear it at the broker");
                self.connection.acknowledge(message.delivery);
            }
            Some(Incoming::Prompt) => self.prompt(message, false),
            Some(Incoming::GroupPrompt) => self.prompt(message, true),
            Some(Incoming::Cancel) => self.cancel(message),
            Some(Incoming::Set) => self.set(message),
            Some(Incoming::HomeAssistant) => {
                if message.payload == b"online" && !message.retained {
                    self.announce();
                    self.publish_status();
                }
                self.connection.acknowledge(message.delivery);
            }
            None => {
                self.counters.ignored += 1;
                self.connection.acknowledge(message.delivery);
            }
        }
    }

    fn cancel(&mut self, message: Message) {
        let named = parse_cancel(&message.payload);
        let refusal = match named.as_deref() {
            Ok(CURRENT) => {
                self.drawer.stop();
                None
            }
            Ok(ALL) => {
                for job in self.machine.queue().names() {
                    self.cancel_job(&job);
                }
                self.drawer.stop();
                None
            }
            Ok(name) if self.cancel_job(name) => None,
            Ok(name) => Some(format!("there is no job {name:?} to cancel; it may have ended")),
            Err(reason) => Some(reason.to_owned()),
        };
        self.command_done(message, refusal);
    }

    /// Takes a job back; false if there is none of this name that waits or is drawn.
    fn cancel_job(&mut self, name: &str) -> bool {
        match self.machine.cancel(name) {
            Cancelled::Waiting(job) => {
                self.end(&job.job, Outcome::Cancelled, Err("it was cancelled".into()), None)
            }
            Cancelled::Drawing(_) => self.drawer.stop(),
            Cancelled::Unknown => return false,
        }
        true
    }

    fn set(&mut self, message: Message) {
        let applied = SetMessage::parse(&message.payload)
            .and_then(|set| set.apply(&mut self.rules, &self.model));
        self.command_done(message, applied.err());
    }

    /// Acknowledges a command; what could not be done is answered as a refused prompt is.
    fn command_done(&mut self, message: Message, refusal: Option<String>) {
        match refusal {
            None => self.connection.acknowledge(message.delivery),
            Some(reason) => {
                let reply = self.reply_of(&message).unwrap_or_default();
                self.refuse(message.delivery, &reply, None, &reason);
            }
        }
        self.publish_status();
    }

    /// Publishes the device's state, retained.
    pub fn publish_status(&mut self) {
        self.status_at = Instant::now();
        let payload = self.status().to_string().into_bytes();
        self.connection.publish(Outbound {
            topic: self.topics.status(),
            payload,
            retain: true,
            content_type: Some("application/json"),
            ..Outbound::default()
        });
    }

    /// Called about once a second.
    pub fn tick(&mut self) {
        self.answers.release();
        if self.status_at.elapsed() >= Duration::from_secs(u64::from(self.config.status_seconds)) {
            self.publish_status();
        }
    }
}
