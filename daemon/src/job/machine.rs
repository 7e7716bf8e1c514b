//! The job state machine: waiting, drawing, answered, published, forgotten.

use std::collections::{HashMap, VecDeque};

use super::journal::Record;
use super::{Answer, Identity, Job, Queue};

/// Bounds of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineLimits {
    /// Jobs that may wait.
    pub queue_length: usize,
    /// Answers that are kept for repeated prompts.
    pub answers_max: usize,
    /// Bytes of their pictures.
    pub answers_bytes_max: u64,
}

/// What to do with a prompt that has passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// New: journal it, then [`Machine::accept`].
    Accept,
    /// Drawn before: publish that answer again.
    AnswerAgain {
        /// Whose answer.
        job: String,
    },
    /// On its way: its answer will come.
    Pending {
        /// Which job.
        job: String,
    },
    /// The queue is full.
    Full {
        /// Its places.
        capacity: usize,
    },
}

/// What a cancel request met.
#[derive(Clone, Debug, PartialEq)]
pub enum Cancelled {
    /// It waited, and waits no more: answer it as cancelled.
    Waiting(Box<Job>),
    /// It is being drawn: stop the drawer, whose report ends the job.
    Drawing(String),
    /// No such job waits or is drawn.
    Unknown,
}

#[derive(Clone, Debug)]
enum State {
    Waiting,
    Drawing,
    Answered { answer: Box<Answer>, published: bool },
}

#[derive(Clone, Debug)]
struct Entry {
    job: Job,
    state: State,
}

/// All jobs that the daemon knows.
#[derive(Debug)]
pub struct Machine {
    limits: MachineLimits,
    queue: Queue,
    entries: HashMap<String, Entry>,
    by_identity: HashMap<Identity, String>,
    /// In the order in which they were answered.
    answered: VecDeque<String>,
    answers_bytes: u64,
    drawing: Option<String>,
}

impl Machine {
    /// The machine as the journal left it: jobs without an answer wait again, in the order in which they came.
    pub fn replay(limits: MachineLimits, records: impl IntoIterator<Item = Record>) -> Self {
        let mut machine = Machine {
            limits,
            queue: Queue::new(limits.queue_length),
            entries: HashMap::new(),
            by_identity: HashMap::new(),
            answered: VecDeque::new(),
            answers_bytes: 0,
            drawing: None,
        };
        let mut arrivals = Vec::new();
        for record in records {
            match record {
                Record::Accepted { job } => {
                    arrivals.push(job.job.clone());
                    machine.insert(*job);
                }
                Record::Answered { job, answer } => machine.answer(&job, *answer),
                Record::Published { job } => machine.published(&job),
                Record::Forgotten { job } => drop(machine.forget(&job)),
            }
        }
        for job in arrivals {
            if let Some(Entry { state: State::Waiting, job: entry }) = machine.entries.get(&job)
                && machine.queue.restore(&job, entry.priority).is_err()
            {
                log::error!("job {job} was accepted but the queue has no room to restore it");
            }
        }
        machine
    }

    /// What to do with a prompt of this identity.
    pub fn decide(&self, identity: Option<&Identity>) -> Decision {
        if let Some(job) = identity.and_then(|identity| self.by_identity.get(identity)) {
            return match self.entries[job].state {
                State::Answered { .. } => Decision::AnswerAgain { job: job.clone() },
                State::Waiting | State::Drawing => Decision::Pending { job: job.clone() },
            };
        }
        // A broker that takes prompts and no answers must not fill the disk.
        let (capacity, unpublished) = (self.queue.capacity(), self.unpublished().len());
        if self.queue.is_full() || unpublished > capacity {
            return Decision::Full { capacity };
        }
        Decision::Accept
    }

    /// Takes a job; it is accepted once its record is in the journal, and [`Machine::forget`] takes it back if that fails.
    ///
    /// # Panics
    /// If the queue is full or the name is known: [`Machine::decide`] said [`Decision::Accept`] for it.
    pub fn accept(&mut self, job: Job) {
        assert!(!self.entries.contains_key(&job.job), "job {} is known", job.job);
        self.queue.push(&job.job, job.priority).expect("decide() saw a free place");
        self.insert(job);
    }

    fn insert(&mut self, job: Job) {
        if let Some(identity) = &job.identity {
            self.by_identity.insert(identity.clone(), job.job.clone());
        }
        self.entries.insert(job.job.clone(), Entry { job, state: State::Waiting });
    }

    /// Takes the next job out of the queue to be drawn; `None` if one is being drawn or nothing waits.
    pub fn take_next(&mut self) -> Option<Job> {
        if self.drawing.is_some() {
            return None;
        }
        let name = self.queue.pop()?;
        let entry = self.entries.get_mut(&name).expect("a queued job is known");
        entry.state = State::Drawing;
        self.drawing = Some(name);
        Some(entry.job.clone())
    }

    /// Notes a job's answer, which is in the journal.
    pub fn answer(&mut self, job: &str, answer: Answer) {
        if self.drawing.as_deref() == Some(job) {
            self.drawing = None;
        }
        self.queue.remove(job);
        let Some(entry) = self.entries.get_mut(job) else { return };
        if matches!(entry.state, State::Answered { .. }) {
            return;
        }
        self.answers_bytes += answer.image_bytes();
        entry.state = State::Answered { answer: Box::new(answer), published: false };
        self.answered.push_back(job.to_owned());
    }

    /// Notes that the broker has the answer.
    pub fn published(&mut self, job: &str) {
        if let Some(Entry { state: State::Answered { published, .. }, .. }) =
            self.entries.get_mut(job)
        {
            *published = true;
        }
    }

    /// The oldest published answer that is beyond the bounds, with its number of pictures: journal that it is
    /// forgotten, then [`Machine::forget`] it.
    pub fn to_forget(&self) -> Option<(String, usize)> {
        let over = self.answered.len() > self.limits.answers_max
            || self.answers_bytes > self.limits.answers_bytes_max;
        over.then(|| {
            self.answered.iter().find_map(|name| match &self.entries[name].state {
                State::Answered { answer, published: true } => {
                    Some((name.clone(), answer.images.len()))
                }
                _ => None,
            })
        })
        .flatten()
    }

    /// Drops a job and its answer.
    pub fn forget(&mut self, job: &str) -> Option<Job> {
        let entry = self.entries.remove(job)?;
        self.queue.remove(job);
        if self.drawing.as_deref() == Some(job) {
            self.drawing = None;
        }
        if let State::Answered { answer, .. } = &entry.state {
            self.answers_bytes -= answer.image_bytes();
            self.answered.retain(|name| name != job);
        }
        if let Some(identity) = &entry.job.identity
            && self.by_identity.get(identity).is_some_and(|name| name == job)
        {
            self.by_identity.remove(identity);
        }
        Some(entry.job)
    }

    /// Takes a job back, by its name or, for those with an identity, by its sender's id.
    pub fn cancel(&mut self, name_or_id: &str) -> Cancelled {
        let by_id = || {
            let pending = |entry: &&Entry| !matches!(entry.state, State::Answered { .. });
            let same = |entry: &&Entry| {
                entry.job.identity.as_ref().is_some_and(|identity| identity.id == name_or_id)
            };
            self.entries.values().filter(pending).find(same).map(|entry| entry.job.job.clone())
        };
        let name = if self.entries.contains_key(name_or_id) {
            Some(name_or_id.to_owned())
        } else {
            by_id()
        };
        let Some(name) = name else { return Cancelled::Unknown };
        let entry = &self.entries[&name];
        match entry.state {
            _ if entry.job.is_again => Cancelled::Unknown,
            State::Waiting => {
                let job = entry.job.clone();
                self.queue.remove(&name);
                Cancelled::Waiting(Box::new(job))
            }
            State::Drawing => Cancelled::Drawing(name),
            State::Answered { .. } => Cancelled::Unknown,
        }
    }

    /// A job that waits or is drawn.
    pub fn pending(&self, job: &str) -> Option<&Job> {
        self.entries
            .get(job)
            .filter(|entry| !matches!(entry.state, State::Answered { .. }))
            .map(|entry| &entry.job)
    }

    /// All jobs that are answered, oldest first.
    pub fn answered(&self) -> Vec<String> {
        self.answered.iter().cloned().collect()
    }

    /// Takes an answer back whose pictures are gone: one that the broker does not have yet is drawn again, one that it has is
    /// forgotten.
    pub fn lose_answer(&mut self, job: &str) {
        let is_published = matches!(
            self.entries.get(job),
            Some(Entry { state: State::Answered { published: true, .. }, .. })
        );
        let Some(job) = self.forget(job) else { return };
        if is_published {
            return;
        }
        if self.queue.restore(&job.job, job.priority).is_err() {
            log::error!("job {} is to be drawn again but the queue has no room for it", job.job);
        }
        self.insert(Job { deadline_ms: None, is_again: true, ..job });
    }

    /// A job's answer with the job.
    pub fn answer_of(&self, job: &str) -> Option<(&Job, &Answer)> {
        match self.entries.get(job)? {
            Entry { job, state: State::Answered { answer, .. } } => Some((job, answer)),
            _ => None,
        }
    }

    /// Jobs whose answers the broker has not acknowledged, oldest first.
    pub fn unpublished(&self) -> Vec<String> {
        let waiting = |name: &&String| {
            matches!(self.entries[*name].state, State::Answered { published: false, .. })
        };
        self.answered.iter().filter(waiting).cloned().collect()
    }

    /// Jobs that wait.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The job that is being drawn.
    pub fn drawing(&self) -> Option<&str> {
        self.drawing.as_deref()
    }

    /// Whether a job of this name is known.
    pub fn knows(&self, job: &str) -> bool {
        self.entries.contains_key(job)
    }

    /// Answers that are kept, and the bytes of their pictures.
    pub fn answers(&self) -> (usize, u64) {
        (self.answered.len(), self.answers_bytes)
    }

    /// The fewest records from which [`Machine::replay`] makes this machine again.
    pub fn records(&self) -> Vec<Record> {
        let mut pending: Vec<&Entry> = self
            .entries
            .values()
            .filter(|entry| !matches!(entry.state, State::Answered { .. }))
            .collect();
        pending.sort_by_key(|entry| (entry.job.accepted_ms, entry.job.job.clone()));
        let mut records = Vec::new();
        for name in &self.answered {
            let Entry { job, state: State::Answered { answer, published } } = &self.entries[name]
            else {
                continue;
            };
            records.push(Record::Accepted { job: Box::new(job.clone()) });
            records.push(Record::Answered { job: name.clone(), answer: answer.clone() });
            if *published {
                records.push(Record::Published { job: name.clone() });
            }
        }
        records.extend(
            pending.iter().map(|entry| Record::Accepted { job: Box::new(entry.job.clone()) }),
        );
        records
    }
}
