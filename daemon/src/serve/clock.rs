//! Time as the daemon sees it: the system's clock, which may jump, and when each job of this run came in, which may not.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds of Unix time.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Jobs that came in during this run. Those of an earlier one have only the journal's Unix time.
#[derive(Debug, Default)]
pub struct Arrivals(HashMap<String, Arrival>);

/// When a job came in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its message was read.
    pub received: Instant,
    /// From here on it is not drawn any more.
    pub deadline: Option<Instant>,
    /// It found the drawer free, so that its start measures the daemon and not the queue.
    pub at_once: bool,
}

impl Arrivals {
    /// Notes a job.
    pub fn note(
        &mut self,
        job: &str,
        received: Instant,
        expiry_seconds: Option<u32>,
        at_once: bool,
    ) {
        let expiry = expiry_seconds.map(|seconds| Duration::from_secs(u64::from(seconds)));
        let deadline = expiry.and_then(|expiry| received.checked_add(expiry));
        self.0.insert(job.to_owned(), Arrival { received, deadline, at_once });
    }

    /// When a job came in, if that was in this run.
    pub fn of(&self, job: &str) -> Option<Arrival> {
        self.0.get(job).copied()
    }

    /// Forgets a job that has its answer.
    pub fn forget(&mut self, job: &str) {
        self.0.remove(job);
    }

    /// Whether a job's time is over: by this run's own clock, else by the Unix time of the journal.
    pub fn is_late(&self, job: &str, deadline_ms: Option<u64>) -> bool {
        match self.of(job) {
            Some(arrival) => arrival.deadline.is_some_and(|deadline| Instant::now() >= deadline),
            None => deadline_ms.is_some_and(|deadline| unix_ms() >= deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_changes_no_deadline_of_this_run() {
        let mut arrivals = Arrivals::default();
        arrivals.note("a", Instant::now(), Some(3600), true);
        arrivals.note("b", Instant::now(), None, true);
        arrivals.note("c", Instant::now(), Some(0), true);
        let (past, future) = (Some(1), Some(u64::MAX));
        assert!(!arrivals.is_late("a", past) && !arrivals.is_late("b", past));
        assert!(arrivals.is_late("c", future));
        arrivals.forget("a");
        assert!(arrivals.is_late("a", past) && !arrivals.is_late("a", future));
        assert!(!arrivals.is_late("a", None));
    }
}
