//! Weights that are read from storage while the network runs: a thread reads them into the window, in the order of
//! the plan and as early as it allows, and steps wait for those that they need.
//!
//! Whoever begins a step says so ([`Stream::begin`]); what lay in the window for the steps before it may go then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use crate::arena::Arena;
use crate::plan::Load;

use super::EngineError;
use super::gate::lock;
use super::weights::Weights;

/// Bytes of one read; between two of them a run may be given up.
const READ_BYTES: usize = 4 << 20;
const STACK_BYTES: usize = 128 << 10;
/// The reader's number among those who touch the window.
const READER: usize = usize::MAX;

/// The window, and the thread that reads into it.
pub(super) struct Stream {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    window: Arc<Arena>,
    weights: Arc<dyn Weights>,
    /// Loads of this run that are done; changes under the lock.
    loaded: AtomicUsize,
    state: Mutex<State>,
    /// There may be something to read.
    asked: Condvar,
    /// Something was read, or nothing more will be.
    read: Condvar,
}

struct State {
    /// What the run reads, and the step that it begins with.
    run: Option<(Arc<[Load]>, usize)>,
    /// Of the first loads, so many, those that stay are in the window.
    stayed: usize,
    /// The step that has begun.
    step: usize,
    reading: bool,
    /// The step that the thread waits for.
    awaited: usize,
    /// Why no more is read.
    failed: Option<String>,
    quit: bool,
}

/// The weights that a step needs will not come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing;

impl Stream {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`EngineError::Threads`], [`EngineError::Weights`].
    pub fn new(weights: Arc<dyn Weights>, window: Arc<Arena>) -> Result<Self, EngineError> {
        weights.read(0, &mut []).map_err(EngineError::Weights)?;
        let (awaited, reading) = (usize::MAX, true);
        let state =
            State { run: None, stayed: 0, step: 0, reading, awaited, failed: None, quit: false };
        let shared = Arc::new(Shared {
            window,
            weights,
            loaded: AtomicUsize::new(0),
            state: Mutex::new(state),
            asked: Condvar::new(),
            read: Condvar::new(),
        });
        let own = shared.clone();
        let thread = std::thread::Builder::new()
            .name("plantain-reader".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || own.serve())
            .map_err(|error| EngineError::Threads { threads: 1, error })?;
        // A thread allocates while it starts.
        drop(shared.idle());
        Ok(Stream { shared, thread: Some(thread) })
    }

    /// Before a run that begins with a step: reads what may be read then. `anew` says that the run before was another
    /// network's, which left nothing in the window.
    pub fn start(&self, loads: &Arc<[Load]>, step: usize, anew: bool) {
        let mut state = self.shared.idle();
        if anew {
            state.stayed = 0;
        }
        (state.run, state.step, state.failed) = (Some((loads.clone(), step)), step, None);
        self.shared.loaded.store(0, Ordering::Release);
        self.shared.asked.notify_one();
    }

    /// All steps before this one are done.
    pub fn begin(&self, step: usize) {
        let mut state = lock(&self.shared.state);
        state.step = step;
        // Most steps ask for nothing new, and waking a thread is a call of the system.
        if state.awaited <= step {
            self.shared.asked.notify_one();
        }
    }

    /// Waits until the first `loads` are done.
    pub fn wait(&self, loads: usize) -> Result<(), Missing> {
        let there = || self.shared.loaded.load(Ordering::Acquire) >= loads;
        if !there() {
            let mut state = lock(&self.shared.state);
            while !there() {
                if state.failed.is_some() {
                    return Err(Missing);
                }
                state = wait(&self.shared.read, state);
            }
        }
        self.shared.window.next_phase();
        Ok(())
    }

    /// Reads no more, and lets all go who wait.
    pub fn fail(&self, sentence: &str) {
        let mut state = lock(&self.shared.state);
        state.failed.get_or_insert_with(|| sentence.to_owned());
        state.run = None;
        drop(state);
        self.shared.read.notify_all();
    }

    /// After a run: why weights were missing, if they were.
    pub fn finish(&self) -> Option<String> {
        lock(&self.shared.state).run = None;
        self.shared.idle().failed.take()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        lock(&self.shared.state).quit = true;
        self.shared.asked.notify_one();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The state once nothing is being read.
    fn idle(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        while state.reading {
            state = wait(&self.read, state);
        }
        state
    }

    fn serve(&self) {
        let mut state = lock(&self.state);
        loop {
            state.reading = false;
            self.read.notify_all();
            let next = self.loaded.load(Ordering::Acquire);
            if state.quit {
                return;
            }
            let run = state.run.as_ref();
            let load = run.and_then(|(loads, first)| Some((loads.get(next)?.clone(), *first)));
            let next_step = load.as_ref().map_or(usize::MAX, |(load, _)| load.asked_step);
            let Some((load, first)) = load.filter(|_| next_step <= state.step) else {
                state.awaited = next_step;
                state = wait(&self.asked, state);
                continue;
            };
            let stayed = state.stayed;
            (state.reading, state.awaited) = (true, usize::MAX);
            drop(state);
            let needless = load.last_step < first || (load.stays && next < stayed);
            // Steps wait for this thread: none may wait for one that panicked.
            let read = || if needless { Ok(()) } else { self.read(&load) };
            let result = catch_unwind(AssertUnwindSafe(read))
                .unwrap_or_else(|_| Err("the thread that reads weights panicked".to_owned()));
            state = lock(&self.state);
            match result {
                // A load that was given up half way is none.
                Ok(()) if state.run.is_none() => {}
                Ok(()) => {
                    state.stayed = stayed.max(next + 1);
                    self.loaded.store(next + 1, Ordering::Release);
                }
                Err(sentence) => (state.failed, state.run) = (Some(sentence), None),
            }
        }
    }

    fn read(&self, load: &Load) -> Result<(), String> {
        for start in (0..load.range.len()).step_by(READ_BYTES) {
            if lock(&self.state).run.is_none() {
                return Ok(());
            }
            let bytes = READ_BYTES.min(load.range.len() - start);
            let out = self.window.write::<u8>(READER, load.at + start, bytes);
            self.weights.read(load.range.start + start, out)?;
        }
        Ok(())
    }
}

fn wait<'a>(condition: &Condvar, guard: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condition.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner())
}
