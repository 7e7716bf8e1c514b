//! The drawer: a thread of its own that draws one job after another.
//!
//! The event loop hands it a job and hears progress and the end of it. It never blocks the event loop, and the event
//! loop never blocks it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::job::{Format, Job};

/// What came out of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// Encoded pictures, in the job's format or, where that is larger than may be sent, a smaller one.
    pub images: Vec<(Format, Vec<u8>)>,
    /// What the result message says of them: seed, steps, size, seconds, memory.
    pub facts: serde_json::Map<String, serde_json::Value>,
}

/// Why nothing came out of a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrawError {
    /// Its sender took it back.
    #[error("the job was cancelled")]
    Cancelled,
    /// It cannot be drawn; one sentence for the sender.
    #[error("{0}")]
    Failed(String),
}

/// A step that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Steps done.
    pub done: u32,
    /// Steps in all.
    pub all: u32,
    /// The picture so far, as a JPEG file, if it was asked for.
    pub preview: Option<Vec<u8>>,
}

/// When a job was drawn.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The thread took it up.
    pub started: Instant,
    /// Its pictures were encoded, or it had failed.
    pub ready: Instant,
}

impl Times {
    /// Milliseconds from the receipt of a prompt to the start.
    pub fn start_ms(&self, received: Instant) -> f64 {
        self.started.saturating_duration_since(received).as_secs_f64() * 1e3
    }
}

/// What draws.
pub trait Artist: Send {
    /// Draws a job; a picture may have `image_bytes_max` bytes. `progress` is called often, with a step where one has ended;
    /// false asks to stop.
    ///
    /// # Errors
    /// [`DrawError`] if it was stopped or cannot be drawn.
    fn draw(
        &mut self,
        job: &Job,
        image_bytes_max: usize,
        progress: &mut dyn FnMut(Option<Step>) -> bool,
    ) -> Result<Drawn, DrawError>;
}

/// What the drawer tells the event loop.
#[derive(Debug)]
pub enum Report {
    /// A step is done.
    Progress {
        /// Of which job.
        job: String,
        /// Which one.
        step: Step,
    },
    /// A job has ended.
    Ended {
        /// Which.
        job: String,
        /// When.
        times: Times,
        /// How.
        result: Result<Drawn, DrawError>,
    },
}

/// A job on its way to the thread.
struct Order {
    job: Job,
    image_bytes_max: usize,
}

/// The event loop's end of the drawer.
pub struct Drawer {
    jobs: Option<SyncSender<Order>>,
    reports: UnboundedReceiver<Report>,
    stop: Arc<AtomicBool>,
    /// Counts steps, so that the watchdog sees real progress.
    beats: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Drawer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(artist: Box<dyn Artist>) -> std::io::Result<Self> {
        let (jobs, inbox) = sync_channel::<Order>(1);
        let (outbox, reports) = unbounded_channel();
        let stop = Arc::new(AtomicBool::new(false));
        let beats = Arc::new(AtomicU64::new(0));
        let (stop_seen, beats_counted) = (stop.clone(), beats.clone());
        let thread = std::thread::Builder::new().name("drawer".into()).spawn(move || {
            let mut artist = artist;
            for order in inbox {
                work(&mut *artist, &order, &outbox, &stop_seen, &beats_counted);
            }
        })?;
        Ok(Drawer { jobs: Some(jobs), reports, stop, beats, thread: Some(thread) })
    }

    /// Hands it a job; false if the thread is gone. Only one job may be with it at a time.
    pub fn hand(&self, job: Job, image_bytes_max: usize) -> bool {
        self.stop.store(false, Ordering::Release);
        let Some(jobs) = &self.jobs else { return false };
        jobs.send(Order { job, image_bytes_max }).is_ok()
    }

    /// Asks it to stop the job that it draws; the end is reported as [`DrawError::Cancelled`].
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Waits for a report; `None` if the thread is gone.
    pub async fn report(&mut self) -> Option<Report> {
        self.reports.recv().await
    }

    /// Steps done since the start.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Acquire)
    }
}

impl Drop for Drawer {
    fn drop(&mut self) {
        self.stop();
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the drawer ended by a panic");
        }
    }
}

fn work(
    artist: &mut dyn Artist,
    order: &Order,
    outbox: &UnboundedSender<Report>,
    stop: &AtomicBool,
    beats: &AtomicU64,
) {
    let job = &order.job;
    let started = Instant::now();
    let mut progress = |step: Option<Step>| {
        beats.fetch_add(1, Ordering::AcqRel);
        if let Some(step) = step {
            let _ = outbox.send(Report::Progress { job: job.job.clone(), step });
        }
        !stop.load(Ordering::Acquire)
    };
    let result = artist.draw(job, order.image_bytes_max, &mut progress);
    beats.fetch_add(1, Ordering::AcqRel);
    let times = Times { started, ready: Instant::now() };
    let _ = outbox.send(Report::Ended { job: job.job.clone(), times, result });
}
