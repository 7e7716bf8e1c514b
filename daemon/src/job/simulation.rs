//! The machine and the journal's bytes under faults: crashes that tear the journal, duplicate deliveries, lost
//! acknowledgements, cancels. No I/O, a fake clock; a failing run prints its seed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::journal::{Record, encode, replay};
use super::*;

const LIMITS: MachineLimits =
    MachineLimits { queue_length: 5, answers_max: 7, answers_bytes_max: 1 << 20 };

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// The daemon's shell without sockets and files.
struct World {
    random: Random,
    machine: Machine,
    /// Durable bytes; a crash may tear what the last append was writing.
    journal: Vec<u8>,
    clock_ms: u64,
    drawn: BTreeMap<String, u32>,
    accepted: BTreeSet<String>,
    cancelled: BTreeSet<String>,
    answers: BTreeMap<String, BTreeSet<String>>,
}

impl World {
    fn new(seed: u64) -> Self {
        World {
            random: Random(seed | 1),
            machine: Machine::replay(LIMITS, []),
            journal: Vec::new(),
            clock_ms: 1,
            drawn: BTreeMap::new(),
            accepted: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            answers: BTreeMap::new(),
        }
    }

    /// Appends, or crashes halfway: false if the daemon is a new one now.
    fn append(&mut self, record: &Record) -> bool {
        let line = encode(record);
        if self.random.below(25) == 0 {
            let torn = self.random.below(line.len() as u64 + 1) as usize;
            self.journal.extend(&line[..torn]);
            self.crash();
            return false;
        }
        self.journal.extend(line);
        true
    }

    fn crash(&mut self) {
        let (records, valid) = replay(&self.journal);
        self.journal.truncate(valid);
        self.machine = Machine::replay(LIMITS, records);
        // A power cut may take pictures that were never synced.
        for job in self.machine.answered() {
            let has_pictures = self
                .machine
                .answer_of(&job)
                .is_some_and(|(_, answer)| answer.outcome == Outcome::Done);
            if has_pictures && self.random.below(10) == 0 {
                self.machine.lose_answer(&job);
            }
        }
    }

    fn prompt(&mut self, id: u64) {
        let identity = Identity { sender: "client".into(), id: format!("p{id}") };
        match self.machine.decide(Some(&identity)) {
            Decision::Accept => {
                let job = job(&identity, self.clock_ms, (self.random.below(3)) as i8);
                if self.append(&Record::Accepted { job: Box::new(job.clone()) }) {
                    self.accepted.insert(job.job.clone());
                    self.machine.accept(job);
                }
            }
            Decision::AnswerAgain { job } => self.publish(&job),
            Decision::Pending { .. } | Decision::Full { .. } => {}
        }
    }

    fn draw(&mut self) {
        let Some(job) = self.machine.take_next() else { return };
        if self.random.below(10) == 0 {
            return self.crash();
        }
        *self.drawn.entry(job.job.clone()).or_default() += 1;
        self.finish(&job.job, Outcome::Done);
    }

    fn finish(&mut self, job: &str, outcome: Outcome) {
        let answer = Answer {
            outcome,
            result: json!({"job": job}),
            images: vec![Stored { bytes: 3, format: Format::Png }],
        };
        if self.append(&Record::Answered { job: job.to_owned(), answer: Box::new(answer.clone()) })
        {
            self.machine.answer(job, answer);
            self.publish(job);
        }
    }

    fn publish(&mut self, job: &str) {
        // A crash in between may have taken its pictures.
        let Some((_, answer)) = self.machine.answer_of(job) else { return };
        self.answers.entry(job.to_owned()).or_default().insert(format!("{answer:?}"));
        if self.random.below(4) != 0 && self.append(&Record::Published { job: job.to_owned() }) {
            self.machine.published(job);
        }
    }

    fn cancel(&mut self) {
        let id = format!("p{}", self.random.below(40));
        if let Cancelled::Waiting(job) = self.machine.cancel(&id) {
            self.cancelled.insert(job.job.clone());
            self.finish(&job.job, Outcome::Cancelled);
        }
    }

    fn tidy(&mut self) {
        while let Some((job, _)) = self.machine.to_forget() {
            if !self.append(&Record::Forgotten { job: job.clone() }) {
                return;
            }
            self.machine.forget(&job);
        }
        if self.random.below(20) == 0 {
            self.journal = self.machine.records().iter().flat_map(encode).collect();
        }
    }

    fn check(&self) {
        // Acceptance stops at the capacity (`accept` asserts it), and at as many answers that the broker does not have. After a
        // power cut the job that was being drawn waits again, and so do those whose unsynced pictures were lost.
        assert!(
            self.machine.queue().len() <= 2 * LIMITS.queue_length + 2,
            "the queue passed its bound"
        );
        for (job, answers) in &self.answers {
            assert_eq!(answers.len(), 1, "job {job} was answered in two ways");
        }
    }
}

fn job(identity: &Identity, now: u64, priority: i8) -> Job {
    let drawing = Drawing {
        prompt: "a cat".into(),
        negative: String::new(),
        style: None,
        seed: 1,
        steps: None,
        guidance: None,
        size: None,
        count: 1,
        format: Format::Png,
        palette: String::new(),
        dither: Default::default(),
        preview: false,
    };
    let job = format!("{}-{}", identity.id, now);
    let identity = Some(identity.clone());
    Job {
        job,
        identity,
        drawing,
        priority,
        reply: Reply::default(),
        accepted_ms: now,
        deadline_ms: None,
        is_again: false,
    }
}

#[test]
fn loses_no_accepted_job_and_answers_each_in_one_way() {
    let base = std::env::var("PLANTAIN_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0x9e37_79b9u64);
    for round in 0..200u64 {
        let seed = base.wrapping_mul(round + 1);
        println!("simulation seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.clock_ms += 1;
            match world.random.below(10) {
                0..4 => {
                    let id = world.random.below(40);
                    world.prompt(id);
                }
                4..8 => world.draw(),
                8 => world.cancel(),
                _ => world.tidy(),
            }
            world.check();
        }
        // The faults end: everything that was accepted is answered and published.
        world.crash();
        world.random = Random(u64::MAX / 3);
        for _ in 0..2000 {
            world.draw();
            for job in world.machine.unpublished() {
                world.publish(&job);
            }
        }
        assert!(world.machine.queue().is_empty() && world.machine.unpublished().is_empty());
        for job in &world.accepted {
            assert!(world.answers.contains_key(job), "accepted job {job} was never answered");
        }
    }
}

#[test]
fn rewriting_keeps_the_machine() {
    let mut world = World::new(77);
    for step in 0..300 {
        world.clock_ms += 1;
        if step % 2 == 0 {
            world.prompt(step)
        } else {
            world.draw()
        }
        let again = Machine::replay(LIMITS, world.machine.records());
        assert_eq!(again.unpublished(), world.machine.unpublished());
        assert_eq!(again.answers(), world.machine.answers());
        let waiting = world.machine.queue().len() + usize::from(world.machine.drawing().is_some());
        assert_eq!(again.queue().len(), waiting);
    }
}
