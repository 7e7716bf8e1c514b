//! Prompts on their way in: checked, refused with a reason, or accepted into the journal.

use plantain::hash;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::app::{App, PAYLOAD_VERSION};
use super::clock::unix_ms;
use crate::job::journal::Record;
use crate::job::{Decision, Identity, Job, Reply};
use crate::mqtt::client::{Delivery, Message, Outbound};
use crate::mqtt::message::{NAME_BYTES_MAX, PromptMessage, parse_prompt};

/// Group prompts that may wait, unacknowledged, for a place in the queue.
const POSTPONED_MAX: usize = 1024;
/// Longest correlation data that is kept.
const CORRELATION_BYTES_MAX: usize = 256;

impl App {
    pub(super) fn prompt(&mut self, message: Message, grouped: bool) {
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
                    Ok(job) => self.accept(job, message, grouped),
                    Err(reason) => {
                        self.refuse(message.delivery, &reply, parsed.id.as_deref(), &reason)
                    }
                }
            }
        }
    }

    /// Where the answer to a message goes, as its sender asks for.
    pub(super) fn reply_of(&self, message: &Message) -> Result<Reply, String> {
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
            correlation_hex: message.correlation.as_deref().map(hash::hex),
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
        let name = self.name(identity.as_ref(), now_ms);
        // The seed is part of the job, so that drawing it again after a crash gives the same bytes.
        let random = Sha256::digest(format!("{name}\0{now_ms}\0{}", self.serial));
        let seed = u32::from_le_bytes([random[0], random[1], random[2], random[3]]);
        let drawing = parsed.drawing(&self.rules, seed.into())?;
        if let Some(style) = &drawing.style
            && !self.model.has_style(style)
        {
            return Err(format!("style is {style:?}; there are {}", self.model.style_list()));
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

    fn accept(&mut self, job: Job, message: Message, grouped: bool) {
        let delivery = message.delivery;
        let at_once = self.machine.drawing().is_none() && self.machine.queue().is_empty();
        self.arrivals.note(&job.job, message.received, message.expiry_seconds, at_once);
        self.machine.accept(job.clone());
        // Drawing starts while the disk works. Nothing is promised before the record is safe, and what the drawer says is
        // heard after that.
        if at_once && !self.arrivals.is_late(&job.job, job.deadline_ms) {
            self.draw_next();
        }
        if let Err(error) = self.journal.append(&Record::Accepted { job: Box::new(job.clone()) }) {
            log::error!("{error}");
            if self.machine.drawing() == Some(&job.job) {
                self.drawer.stop();
            }
            self.machine.forget(&job.job);
            self.arrivals.forget(&job.job);
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
        self.draw_next();
        self.publish_status();
    }

    /// A job's name, which no job that is known has: by its identity, else by time, which may have been set back.
    fn name(&mut self, identity: Option<&Identity>, now_ms: u64) -> String {
        loop {
            self.serial += 1;
            let name = match identity {
                Some(Identity { sender, id }) => {
                    hash::sha256(format!("{}:{sender}{id}", sender.len()))[..32].to_owned()
                }
                None => format!("{now_ms:x}-{:x}", self.serial),
            };
            if identity.is_some() || !self.machine.knows(&name) {
                return name;
            }
        }
    }

    /// Answers a prompt that never became a job.
    pub(super) fn refuse(
        &mut self,
        delivery: Delivery,
        reply: &Reply,
        id: Option<&str>,
        reason: &str,
    ) {
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
}

fn sender_of(parsed: &PromptMessage, message: &Message) -> String {
    let property = || {
        message.properties.iter().find(|(key, _)| key == "client").map(|(_, value)| value.clone())
    };
    let sender = parsed.client.clone().or_else(property).or_else(|| message.response_topic.clone());
    sender.unwrap_or_default().chars().take(NAME_BYTES_MAX).collect()
}

fn identity_of(parsed: &PromptMessage, reply: &Reply, sender: String) -> Option<Identity> {
    let id = parsed.id.clone().or_else(|| reply.correlation_hex.clone())?;
    Some(Identity { sender, id })
}
