//! Jobs on their way out: drawn one after another, their ends journalled, kept and published.

use serde_json::{Map, Value, json};

use super::app::{App, PAYLOAD_VERSION};
use super::clock::unix_ms;
use super::drawer::{DrawError, Drawn, Report, Times};
use super::fit;
use crate::job::journal::Record;
use crate::job::{Answer, Format, Job, Outcome, Reply, Stored};
use crate::mqtt::client::Outbound;

impl App {
    /// Hands the next job to the drawer, if it is free.
    pub fn draw_next(&mut self) {
        while !self.ending {
            let Some(job) = self.machine.take_next() else { return };
            if self.arrivals.is_late(&job.job, job.deadline_ms) {
                let error = "its message expiry passed before it could be drawn";
                self.end(&job.job, Outcome::Expired, Err(error.into()), None);
                continue;
            }
            let name = job.job.clone();
            if !self.drawer.hand(job, fit::image_bytes_max(self.packet_bytes_max)) {
                self.end(&name, Outcome::Failed, Err("the drawer has stopped".into()), None);
            }
            return;
        }
    }

    /// Handles what the drawer tells.
    pub fn on_report(&mut self, report: Report) {
        match report {
            Report::Progress { job, step } => {
                let mut payload = json!({
                    "version": PAYLOAD_VERSION, "job": job, "step": step.done, "steps": step.all,
                });
                if let Some(preview) = step.preview {
                    payload["preview"] = base64(&preview).into();
                }
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
            Report::Ended { job, times, result } => {
                if let Some(arrival) = self.arrivals.of(&job)
                    && arrival.at_once
                {
                    self.counters.start_ms.add(times.start_ms(arrival.received));
                }
                let (outcome, drawn) = match result {
                    Ok(drawn) => (Outcome::Done, Ok(drawn)),
                    Err(DrawError::Cancelled) => {
                        (Outcome::Cancelled, Err("it was cancelled".into()))
                    }
                    Err(DrawError::Failed(reason)) => (Outcome::Failed, Err(reason)),
                };
                self.end(&job, outcome, drawn, Some(times));
                self.draw_next();
                for message in std::mem::take(&mut self.postponed) {
                    self.prompt(message, true);
                }
                self.publish_status();
            }
        }
    }

    /// Journals and publishes how a job ended.
    pub(super) fn end(
        &mut self,
        name: &str,
        outcome: Outcome,
        drawn: Result<Drawn, String>,
        times: Option<Times>,
    ) {
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
                result.extend(self.waiting_times(&job, times));
            }
            Err(reason) => drop(result.insert("error".into(), reason.into())),
        }
        self.counters.ended(outcome);
        // The pictures leave while the disk works: drawn again after a crash they would be the same bytes. The result, whose
        // times would be others, waits until it is safe.
        let mut result = Value::Object(result);
        let image_error = self.send_images(name, &job.reply, &images, times);
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
        let answer = Answer { outcome, result: result.clone(), images: stored };
        let record = Record::Answered { job: name.to_owned(), answer: Box::new(answer.clone()) };
        if let Err(error) = self.journal.append(&record) {
            log::error!("{error}");
        }
        self.machine.answer(name, answer);
        log::info!("job {name} ended: {outcome:?}");
        if let Some(reason) = image_error {
            result["image_error"] = reason.into();
        }
        self.send_result(name, &job.reply, &result);
        self.arrivals.forget(name);
        self.tidy();
    }

    /// How long a job took from its receipt: by this run's own clock, else, without its parts, by the system's.
    fn waiting_times(&self, job: &Job, times: Option<Times>) -> Vec<(String, Value)> {
        let Some((arrival, times)) = self.arrivals.of(&job.job).zip(times) else {
            let total_ms = unix_ms().saturating_sub(job.accepted_ms);
            return vec![("total_ms".into(), total_ms.into())];
        };
        let total_ms = u64::try_from(arrival.received.elapsed().as_millis()).unwrap_or(u64::MAX);
        let start_ms = (times.start_ms(arrival.received) * 1e3).round() / 1e3;
        vec![("total_ms".into(), total_ms.into()), ("start_ms".into(), start_ms.into())]
    }

    /// Sends a kept answer: to its own topics or, for a repeated prompt, to that prompt's reply topic too.
    pub(super) fn publish_answer(&mut self, name: &str, reply: Option<Reply>) {
        if reply.is_none() && self.publishing.is_under_way(name) {
            return;
        }
        let Some((job, answer)) = self.machine.answer_of(name) else { return };
        let (reply, answer) = (reply.unwrap_or_else(|| job.reply.clone()), answer.clone());
        let images = self.stored_images(name, &answer);
        let mut result = answer.result;
        if let Some(reason) = self.send_images(name, &reply, &images, None) {
            result["image_error"] = reason.into();
        }
        self.send_result(name, &reply, &result);
    }

    /// Sends pictures; if one is too large for the broker, why.
    fn send_images(
        &mut self,
        name: &str,
        reply: &Reply,
        images: &[(Format, Vec<u8>)],
        times: Option<Times>,
    ) -> Option<String> {
        let room = fit::image_bytes_max(self.packet_bytes_max);
        let mut image_error = None;
        for (index, (format, image)) in images.iter().enumerate() {
            if image.len() > room {
                let bytes = image.len();
                let reason =
                    format!("it has {bytes} bytes but the broker takes {room}; raise its limit");
                log::warn!("picture {index} of job {name} is not sent: {reason}");
                image_error = Some(reason);
                continue;
            }
            let properties = vec![
                ("job".to_owned(), name.to_owned()),
                ("index".to_owned(), index.to_string()),
                ("count".to_owned(), images.len().to_string()),
            ];
            for (topic, retain) in [(Some(self.topics.image()), true), (reply.topic.clone(), false)]
            {
                let Some(topic) = topic else { continue };
                let token = self.publishing.token(name);
                if let (true, Some(times)) = (index == 0 && retain, times) {
                    self.publishing.measure(token, times.ready);
                }
                self.connection.publish(Outbound {
                    topic,
                    payload: image.clone(),
                    retain,
                    content_type: Some(format.content_type()),
                    correlation: reply.correlation(),
                    properties: properties.clone(),
                    token: Some(token),
                    at_most_once: false,
                });
            }
        }
        image_error
    }

    fn send_result(&mut self, name: &str, reply: &Reply, result: &Value) {
        let payload = result.to_string().into_bytes();
        for topic in [Some(self.topics.result()), reply.topic.clone()].into_iter().flatten() {
            let token = Some(self.publishing.token(name));
            let mut message = Outbound {
                topic,
                payload: payload.clone(),
                content_type: Some("application/json"),
                correlation: reply.correlation(),
                properties: vec![("job".to_owned(), name.to_owned())],
                token,
                ..Outbound::default()
            };
            if let Err(reason) = fit::check(&message, self.packet_bytes_max) {
                message.payload = short_result(result, &reason);
            }
            self.connection.publish(message);
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

    /// Notes that the broker has a job's answer.
    pub(super) fn published(&mut self, name: &str) {
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
}

/// A result that is too large for the broker, without what makes it so.
fn short_result(result: &Value, reason: &str) -> Vec<u8> {
    let mut short = Map::new();
    for key in ["version", "job", "id"] {
        if let Some(value) = result.get(key) {
            short.insert(key.into(), value.clone());
        }
    }
    short.insert("status".into(), "failed".into());
    short.insert("error".into(), format!("the result {reason}").into());
    Value::Object(short).to_string().into_bytes()
}

/// Bytes as RFC 4648, section 4, has them.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte));
        let bits = bits << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let texts = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (length, text) in texts.into_iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..length]), text);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn a_short_result_names_the_job_and_the_reason() {
        let whole =
            json!({"version": 1, "job": "j", "id": "i", "status": "done", "images": [1, 2]});
        let short: Value = serde_json::from_slice(&short_result(&whole, "has 9 bytes")).unwrap();
        let error = "the result has 9 bytes";
        let expected =
            json!({"version": 1, "job": "j", "id": "i", "status": "failed", "error": error});
        assert_eq!(short, expected);
    }
}
