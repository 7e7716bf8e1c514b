//! Which job each message on its way to the broker belongs to, and when a job's answer has arrived there.

use std::collections::HashMap;
use std::time::Instant;

/// Messages of answers that the broker has not acknowledged.
#[derive(Debug, Default)]
pub struct Publishing {
    next_token: u64,
    jobs_by_token: HashMap<u64, String>,
    outstanding: HashMap<String, usize>,
    /// When the pictures were ready whose way is measured.
    ready_by_token: HashMap<u64, Instant>,
}

impl Publishing {
    /// A token for one more message of a job's answer.
    pub fn token(&mut self, job: &str) -> u64 {
        self.next_token += 1;
        self.jobs_by_token.insert(self.next_token, job.to_owned());
        *self.outstanding.entry(job.to_owned()).or_default() += 1;
        self.next_token
    }

    /// Measures the way of a message whose picture was ready then.
    pub fn measure(&mut self, token: u64, ready: Instant) {
        self.ready_by_token.insert(token, ready);
    }

    /// Notes that a message has left; when its picture was ready, if that is measured.
    pub fn sent(&mut self, token: u64) -> Option<Instant> {
        self.ready_by_token.remove(&token)
    }

    /// Notes that the broker has a message; the job if that was the last of its answer.
    pub fn delivered(&mut self, token: u64) -> Option<String> {
        self.ready_by_token.remove(&token);
        let job = self.jobs_by_token.remove(&token)?;
        let left = self.outstanding.get_mut(&job)?;
        *left -= 1;
        if *left > 0 {
            return None;
        }
        self.outstanding.remove(&job);
        Some(job)
    }

    /// Whether a job's answer is on its way.
    pub fn is_under_way(&self, job: &str) -> bool {
        self.outstanding.contains_key(job)
    }

    /// Forgets everything: the connection is gone.
    pub fn clear(&mut self) {
        self.jobs_by_token.clear();
        self.outstanding.clear();
        self.ready_by_token.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_arrived_with_its_last_message() {
        let mut publishing = Publishing::default();
        let (a, b, c) = (publishing.token("x"), publishing.token("x"), publishing.token("y"));
        assert_eq!(publishing.delivered(b), None);
        assert_eq!(publishing.delivered(b), None);
        assert_eq!(publishing.delivered(c), Some("y".into()));
        assert!(publishing.is_under_way("x"));
        assert_eq!(publishing.delivered(a), Some("x".into()));
        assert!(!publishing.is_under_way("x"));
    }
}
