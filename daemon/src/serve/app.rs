//! The event loop's state and what it does on each event.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::config::Config;
use super::drawer::{DrawError, Drawer, Drawn, Report};
use super::fit;
use super::limits::{DenyWords, Usage};
use super::publish::Publishing;
use super::status::{Counters, Model};
use crate::homeassistant;
use crate::job::answers::Answers;
use crate::job::journal::{Journal, Record};
use crate::job::{
    Answer, Cancelled, Decision, Format, Identity, Job, Machine, Outcome, Reply, Stored,
};
use crate::mqtt::client::{Connection, Delivery, Event, Message, Outbound};
use crate::mqtt::message::{PromptMessage, PromptRules, SetMessage, parse_cancel, parse_prompt};
use crate::mqtt::topic::{Incoming, Topics};

/// Version of every payload's layout.
pub const PAYLOAD_VERSION: u32 = 1;
/// Group prompts that may wait, unacknowledged, for a place in the queue.
const POSTPONED_MAX: usize = 1024;
/// Longest correlation data that is kept.
const CORRELATION_BYTES_MAX: usize = 256;

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
            Event::Delivered(token, _) => {
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
        for filter in [self.topics.prompt(), self.topics.cancel(), self.topics.set()] {
            self.connection.subscribe(&filter);
        }
        if let Some(filter) = self.topics.group_filter() {
            self.connection.subscribe(filter);
        }
        if self.config.home_assistant {
            self.connection.subscribe(&format!("{}/status", self.config.home_assistant_prefix));
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

    fn prompt(&mut self, message: Message, grouped: bool) {
        let received = Instant::now();
        self.counters.prompts += 1;
        let reply = match self.reply_of(&message) {
            Ok(reply) => reply,
            Err(reason) => return self.refuse(message.delivery, &Reply::default(), None, &reason),
        };
        let parsed = match parse_prompt(&message.payload, &self.rules) {
            Ok(parsed) => parsed,
            Err(reason) => return self.refuse(message.delivery, &reply, None, &reason),
        };
        let sender = sender_of(&parsed, &message);
        let identity = identity_of(&parsed, &reply, sender.clone());
        match self.machine.decide(identity.as_ref()) {
            Decision::AnswerAgain { job } => {
                self.counters.repeated += 1;
                self.connection.acknowledge(message.delivery);
                self.publish_answer(&job, Some(reply));
            }
            Decision::Pending { job } => {
                self.counters.repeated += 1;
                if grouped {
                    self.held.entry(job).or_default().push(message.delivery);
                } else {
                    self.connection.acknowledge(message.delivery);
                }
            }
            Decision::Full { .. } if grouped && self.postponed.len() < POSTPONED_MAX => {
                self.postponed.push_back(message)
            }
            Decision::Full { capacity } => {
                let reason = format!(
                    "the queue is full: {capacity} of {capacity} places are taken; send it again later"
                );
                self.refuse(message.delivery, &reply, parsed.id.as_deref(), &reason);
            }
            Decision::Accept => {
                match self.checked(&parsed, &message, &sender, identity, reply.clone()) {
                    Ok(job) => self.accept(job, message.delivery, grouped, received),
                    Err(reason) => {
                        self.refuse(message.delivery, &reply, parsed.id.as_deref(), &reason)
                    }
                }
            }
        }
    }

    fn reply_of(&self, message: &Message) -> Result<Reply, String> {
        if message.correlation.as_ref().is_some_and(|data| data.len() > CORRELATION_BYTES_MAX) {
            return Err(format!(
                "the correlation data is longer than {CORRELATION_BYTES_MAX} bytes; shorten it"
            ));
        }
        if let Some(topic) = &message.response_topic {
            let own = format!("{}/", self.config.base);
            let prefixes = &self.config.response_prefixes;
            let allowed = if prefixes.is_empty() { own.as_str() } else { prefixes.as_str() };
            let fits = allowed
                .split(',')
                .map(str::trim)
                .any(|prefix| !prefix.is_empty() && topic.starts_with(prefix));
            if !fits || topic.contains(['+', '#', '\0']) {
                return Err(format!(
                    "the response topic {topic:?} is not under {allowed}; the operator's response_prefixes allow others"
                ));
            }
        }
        Ok(Reply {
            topic: message.response_topic.clone(),
            correlation_hex: message.correlation.as_deref().map(hex),
        })
    }

    fn checked(
        &mut self,
        parsed: &PromptMessage,
        message: &Message,
        sender: &str,
        identity: Option<Identity>,
        reply: Reply,
    ) -> Result<Job, String> {
        let now_ms = unix_ms();
        self.serial += 1;
        let name = match &identity {
            Some(identity) => hex(&Sha256::digest(format!("{}\0{}", identity.sender, identity.id)))
                [..32]
                .to_owned(),
            None => format!("{now_ms:x}-{:x}", self.serial),
        };
        // The seed is part of the job, so that drawing it again after a crash gives the same bytes.
        let seed_bytes = Sha256::digest(format!("{name}\0{now_ms}\0{}", self.serial));
        let seed = u64::from(u32::from_le_bytes([
            seed_bytes[0],
            seed_bytes[1],
            seed_bytes[2],
            seed_bytes[3],
        ]));
        let drawing = parsed.drawing(&self.rules, seed)?;
        if let Some(style) = &drawing.style
            && !self.model.styles.contains(style)
        {
            return Err(format!(
                "style is {style:?}; the pack has {}",
                self.model.styles.join(", ")
            ));
        }
        if self.deny.denies(&drawing.prompt) {
            return Err("the operator of this device does not allow this prompt".into());
        }
        let monotonic_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.usage.count(sender, drawing.count, monotonic_ms)?;
        let deadline_ms = message.expiry_seconds.map(|seconds| now_ms + u64::from(seconds) * 1000);
        let priority = parsed.priority.unwrap_or(0);
        Ok(Job {
            job: name,
            identity,
            drawing,
            priority,
            reply,
            accepted_ms: now_ms,
            deadline_ms,
            is_again: false,
        })
    }

    fn accept(&mut self, job: Job, delivery: Delivery, grouped: bool, received: Instant) {
        if let Err(error) = self.journal.append(&Record::Accepted { job: Box::new(job.clone()) }) {
            log::error!("{error}");
            let reason = format!("this device cannot keep the prompt safe: {error}");
            let id = job.identity.as_ref().map(|identity| identity.id.clone());
            return self.refuse(delivery, &job.reply, id.as_deref(), &reason);
        }
        self.counters.accepted += 1;
        let words = if self.config.log_prompts {
            format!(": {}", job.drawing.prompt)
        } else {
            String::new()
        };
        log::info!("job {} accepted{words}", job.job);
        if grouped {
            self.held.entry(job.job.clone()).or_default().push(delivery);
        } else {
            self.connection.acknowledge(delivery);
        }
        self.machine.accept(job);
        self.draw_next();
        self.counters.accept_ms.add(received.elapsed().as_secs_f64() * 1e3);
        self.publish_status();
    }

    /// Answers a prompt that never became a job.
    fn refuse(&mut self, delivery: Delivery, reply: &Reply, id: Option<&str>, reason: &str) {
        self.counters.refused += 1;
        log::info!("a prompt is refused: {reason}");
        let mut result = Map::new();
        result.insert("version".into(), PAYLOAD_VERSION.into());
        result.insert("status".into(), "refused".into());
        if let Some(id) = id {
            result.insert("id".into(), id.into());
        }
        result.insert("error".into(), reason.into());
        let payload = Value::Object(result).to_string().into_bytes();
        for topic in [Some(self.topics.result()), reply.topic.clone()].into_iter().flatten() {
            self.connection.publish(Outbound {
                topic,
                payload: payload.clone(),
                content_type: Some("application/json"),
                correlation: reply.correlation(),
                ..Outbound::default()
            });
        }
        self.connection.acknowledge(delivery);
    }

    /// Hands the next job to the drawer, if it is free.
    pub fn draw_next(&mut self) {
        while !self.ending {
            let Some(job) = self.machine.take_next() else { return };
            if job.deadline_ms.is_some_and(|deadline| unix_ms() > deadline) {
                let error = "its message expiry passed before it could be drawn";
                self.end(&job.job, Outcome::Expired, Err(error.into()), 0.0);
                continue;
            }
            let name = job.job.clone();
            if !self.drawer.hand(job, fit::image_bytes_max(self.packet_bytes_max)) {
                self.end(&name, Outcome::Failed, Err("the drawer has stopped".into()), 0.0);
            }
            return;
        }
    }

    /// Handles what the drawer tells.
    pub fn on_report(&mut self, report: Report) {
        match report {
            Report::Progress { job, step, steps } => {
                let payload =
                    json!({"version": PAYLOAD_VERSION, "job": job, "step": step, "steps": steps});
                self.connection.publish(Outbound {
                    topic: self.topics.progress(),
                    payload: payload.to_string().into_bytes(),
                    content_type: Some("application/json"),
                    at_most_once: true,
                    ..Outbound::default()
                });
            }
            // A job that was stopped because the daemon ends stays in the journal and is drawn after the restart.
            Report::Ended { job, result: Err(DrawError::Cancelled), .. } if self.ending => {
                log::info!("job {job} waits for the next start");
            }
            Report::Ended { job, start_ms, result } => {
                self.counters.start_ms.add(start_ms);
                match result {
                    Ok(drawn) => self.end(&job, Outcome::Done, Ok(drawn), start_ms),
                    Err(DrawError::Cancelled) => {
                        self.end(&job, Outcome::Cancelled, Err("it was cancelled".into()), start_ms)
                    }
                    Err(DrawError::Failed(reason)) => {
                        self.end(&job, Outcome::Failed, Err(reason), start_ms)
                    }
                }
                self.draw_next();
                for message in std::mem::take(&mut self.postponed) {
                    self.prompt(message, true);
                }
                self.publish_status();
            }
        }
    }

    /// Journals and publishes how a job ended.
    fn end(&mut self, name: &str, outcome: Outcome, drawn: Result<Drawn, String>, start_ms: f64) {
        let ended = Instant::now();
        let Some(job) = self.machine.pending(name).cloned() else { return };
        let mut result = Map::new();
        result.insert("version".into(), PAYLOAD_VERSION.into());
        result.insert("job".into(), job.job.clone().into());
        result.insert("status".into(), json!(outcome));
        if let Some(identity) = &job.identity {
            result.insert("id".into(), identity.id.clone().into());
        }
        let mut images = Vec::new();
        match drawn {
            Ok(drawn) => {
                images = drawn.images;
                result.extend(drawn.facts);
                let waited_ms = unix_ms().saturating_sub(job.accepted_ms);
                result.insert("total_ms".into(), waited_ms.into());
                result.insert("start_ms".into(), json!((start_ms * 1e3).round() / 1e3));
            }
            Err(reason) => drop(result.insert("error".into(), reason.into())),
        }
        self.counters.ended(outcome);
        if let Err(error) = self.answers.store(name, &images) {
            // Drawing it again gives the same bytes, so that only the time is lost.
            log::error!(
                "the pictures of job {name} cannot be kept: {error}; free space in state_dir"
            );
        }
        let stored = images
            .iter()
            .map(|(format, image)| Stored { bytes: image.len() as u64, format: *format })
            .collect();
        let answer = Answer { outcome, result: Value::Object(result), images: stored };
        let record = Record::Answered { job: name.to_owned(), answer: Box::new(answer.clone()) };
        if let Err(error) = self.journal.append(&record) {
            log::error!("{error}");
        }
        self.machine.answer(name, answer);
        log::info!("job {name} ended: {outcome:?}");
        self.send_answer(name, None, Some(images));
        self.counters.publish_ms.add(ended.elapsed().as_secs_f64() * 1e3);
        self.tidy();
    }

    fn publish_answer(&mut self, name: &str, reply: Option<Reply>) {
        if reply.is_none() && self.publishing.is_under_way(name) {
            return;
        }
        self.send_answer(name, reply, None);
    }

    /// Sends a job's answer: to its own topics, or, for a repeated prompt, to that prompt's reply topic too.
    fn send_answer(
        &mut self,
        name: &str,
        reply: Option<Reply>,
        fresh: Option<Vec<(Format, Vec<u8>)>>,
    ) {
        let Some((job, answer)) = self.machine.answer_of(name) else { return };
        let (reply, answer) = (reply.unwrap_or_else(|| job.reply.clone()), answer.clone());
        let images = match fresh {
            Some(images) => images,
            None => self.stored_images(name, &answer),
        };
        let mut result = answer.result.clone();
        let (total, room) = (images.len(), fit::image_bytes_max(self.packet_bytes_max));
        for (index, (format, image)) in images.into_iter().enumerate() {
            if image.len() > room {
                let reason = format!(
                    "it has {} bytes but the broker takes {room}; raise its limit",
                    image.len()
                );
                log::warn!("picture {index} of job {name} is not sent: {reason}");
                result["image_error"] = reason.into();
                continue;
            }
            let properties = vec![
                ("job".to_owned(), name.to_owned()),
                ("index".to_owned(), index.to_string()),
                ("count".to_owned(), total.to_string()),
            ];
            for (topic, retain) in [(Some(self.topics.image()), true), (reply.topic.clone(), false)]
            {
                let Some(topic) = topic else { continue };
                let token = Some(self.publishing.token(name));
                self.connection.publish(Outbound {
                    topic,
                    payload: image.clone(),
                    retain,
                    content_type: Some(format.content_type()),
                    correlation: reply.correlation(),
                    properties: properties.clone(),
                    token,
                    at_most_once: false,
                });
            }
        }
        let payload = result.to_string().into_bytes();
        for topic in [Some(self.topics.result()), reply.topic.clone()].into_iter().flatten() {
            let token = Some(self.publishing.token(name));
            self.connection.publish(Outbound {
                topic,
                payload: payload.clone(),
                content_type: Some("application/json"),
                correlation: reply.correlation(),
                properties: vec![("job".to_owned(), name.to_owned())],
                token,
                ..Outbound::default()
            });
        }
        if !self.connection.is_connected() {
            self.publishing.clear();
        }
    }

    fn stored_images(&self, name: &str, answer: &Answer) -> Vec<(Format, Vec<u8>)> {
        let read = |(index, stored): (usize, &Stored)| {
            Ok((stored.format, self.answers.read(name, index)?))
        };
        let images: std::io::Result<Vec<_>> = answer.images.iter().enumerate().map(read).collect();
        images.unwrap_or_else(|error| {
            log::error!("the pictures of job {name} cannot be read: {error}");
            Vec::new()
        })
    }

    fn published(&mut self, name: &str) {
        if let Err(error) = self.journal.append(&Record::Published { job: name.to_owned() }) {
            log::error!("{error}");
        }
        self.machine.published(name);
        for delivery in self.held.remove(name).unwrap_or_default() {
            self.connection.acknowledge(delivery);
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        while let Some((job, images)) = self.machine.to_forget() {
            if let Err(error) = self.journal.append(&Record::Forgotten { job: job.clone() }) {
                log::error!("{error}");
                break;
            }
            self.machine.forget(&job);
            self.answers.remove(&job, images);
        }
        if self.journal.wants_rewriting()
            && let Err(error) = self.journal.rewrite(self.machine.records().iter())
        {
            log::error!("{error}");
        }
    }

    fn cancel(&mut self, message: Message) {
        match parse_cancel(&message.payload) {
            Ok(name) if name == "current" => self.drawer.stop(),
            Ok(name) => match self.machine.cancel(&name) {
                Cancelled::Waiting(job) => {
                    self.end(&job.job, Outcome::Cancelled, Err("it was cancelled".into()), 0.0)
                }
                Cancelled::Drawing(_) => self.drawer.stop(),
                Cancelled::Unknown => log::info!("there is no job {name:?} to cancel"),
            },
            Err(reason) => {
                self.counters.refused += 1;
                log::info!("a cancel request is refused: {reason}");
            }
        }
        self.connection.acknowledge(message.delivery);
        self.publish_status();
    }

    fn set(&mut self, message: Message) {
        let applied = SetMessage::parse(&message.payload)
            .and_then(|set| set.apply(&mut self.rules, &self.model.styles));
        match applied {
            Ok(()) => self.publish_status(),
            Err(reason) => {
                self.counters.refused += 1;
                log::info!("defaults are not set: {reason}");
            }
        }
        self.connection.acknowledge(message.delivery);
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
        if self.status_at.elapsed() >= Duration::from_secs(u64::from(self.config.status_seconds)) {
            self.publish_status();
        }
    }
}

fn sender_of(parsed: &PromptMessage, message: &Message) -> String {
    let property = || {
        message.properties.iter().find(|(key, _)| key == "client").map(|(_, value)| value.clone())
    };
    let sender = parsed.client.clone().or_else(property).or_else(|| message.response_topic.clone());
    sender.unwrap_or_default().chars().take(crate::mqtt::message::NAME_BYTES_MAX).collect()
}

fn identity_of(parsed: &PromptMessage, reply: &Reply, sender: String) -> Option<Identity> {
    let id = parsed.id.clone().or_else(|| reply.correlation_hex.clone())?;
    Some(Identity { sender, id })
}

/// Bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Milliseconds of Unix time.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
