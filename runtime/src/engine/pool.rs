//! A fixed crew of threads that walk one job together.
//!
//! The caller is worker 0. Every worker runs the same [`Job`], takes its share of each step by its number and
//! meets the others at a barrier, which spins briefly and then parks. A panic of one worker breaks the
//! barrier, so that the others return instead of waiting for it.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{JoinHandle, ThreadId};

use super::EngineError;
use super::gate::{Gate, lock, spin};
use super::pin::{online, pin};

/// Turns of the barrier's spin before it parks: some tens of microseconds, which is what waking a thread takes.
const SPINS: u32 = 1 << 13;
/// Stack of a worker; kernels keep tiles of a few KiB on it.
const STACK_BYTES: usize = 512 << 10;

/// What a crew works on. It must not allocate, and every worker must pass the same barriers.
pub(crate) trait Job: Send + Sync {
    /// Does this worker's share.
    ///
    /// # Errors
    /// [`Stopped`] from a barrier, passed on.
    fn run(&self, crew: &Crew<'_>) -> Result<(), Stopped>;

    /// A worker panicked: lets those go that wait elsewhere than at a barrier.
    fn abandon(&self) {}
}

/// The crew cannot go on: a worker panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a worker thread panicked; this is a defect of the runtime, its message is on standard error"
)]
pub struct Stopped;

/// One worker's place in the crew.
pub(crate) struct Crew<'a> {
    /// `0..workers`; 0 is the caller.
    pub worker: usize,
    /// How many there are.
    pub workers: usize,
    gate: &'a Gate,
    /// A gate for one.
    door: &'a Gate,
    /// Worker 0 has it, if there is one.
    observer: Option<&'a Observer<'a>>,
}

/// Called by worker 0 after each step with its index.
pub(crate) type Observer<'a> = dyn Fn(usize) -> ControlFlow<()> + 'a;

impl<'a> Crew<'a> {
    /// Waits until every worker is here; the last one to come runs `last` before any goes on.
    pub fn barrier(&self, last: impl FnOnce()) -> Result<(), Stopped> {
        self.gate.wait(last)
    }

    /// A crew of one, for what is too short to be shared; its barriers wait for nobody.
    pub fn alone(&self) -> Crew<'a> {
        let door = self.door;
        Crew { worker: 0, workers: 1, gate: door, door, observer: None }
    }

    /// Tells the observer that a step is done.
    pub fn report(&self, step: usize) -> ControlFlow<()> {
        self.observer.map_or(ControlFlow::Continue(()), |observer| observer(step))
    }
}

struct Greeting;

impl Job for Greeting {
    fn run(&self, crew: &Crew<'_>) -> Result<(), Stopped> {
        crew.barrier(|| {})
    }
}

struct Order {
    job: Option<Arc<dyn Job>>,
    quit: bool,
}

struct Shared {
    gate: Gate,
    door: Gate,
    /// Counts jobs, so that a worker takes each once; changes under the lock of `order`.
    number: AtomicU64,
    /// Workers that have not finished the job; changes under the lock of `order`.
    busy: AtomicUsize,
    order: Mutex<Order>,
    given: Condvar,
    finished: Condvar,
    /// A core that a thread could not be kept on.
    refused: Mutex<Option<usize>>,
}

/// Threads that wait for jobs until dropped.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// The core that the caller is kept on, and the thread that was put there last.
    own: Option<(usize, Option<ThreadId>)>,
}

impl Pool {
    /// Starts `workers - 1` threads, each kept on its core where cores are named: the caller's comes first.
    ///
    /// # Errors
    /// [`EngineError::Threads`] if the system gives no more threads, [`EngineError::Core`].
    pub fn new(workers: usize, cores: &[usize]) -> Result<Self, EngineError> {
        let workers = workers.max(1);
        let failed = |error| EngineError::Threads { threads: workers, error };
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            // A spinning worker only delays the one it waits for when they share a core.
            gate: Gate::new(workers, if workers <= available.max(cores.len()) { SPINS } else { 0 }),
            door: Gate::new(1, 0),
            number: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            order: Mutex::new(Order { job: None, quit: false }),
            given: Condvar::new(),
            finished: Condvar::new(),
            refused: Mutex::new(None),
        });
        if let Some(&core) = cores.first() {
            // The thread that will run networks may be another than this one, which is left where it is.
            let probe = std::thread::Builder::new().spawn(move || pin(core)).map_err(failed)?;
            if !matches!(probe.join(), Ok(Ok(()))) {
                return Err(EngineError::Core { core, online: online() });
            }
        }
        let mut pool = Pool { shared: shared.clone(), threads: Vec::new(), own: None };
        for worker in 1..workers {
            let (shared, core) = (shared.clone(), cores.get(worker).copied());
            pool.threads.push(
                std::thread::Builder::new()
                    .name(format!("plantain-{worker}"))
                    .stack_size(STACK_BYTES)
                    .spawn(move || {
                        if let Some(core) = core.filter(|&core| pin(core).is_err()) {
                            *lock(&shared.refused) = Some(core);
                        }
                        serve(&shared, worker);
                    })
                    .map_err(failed)?,
            );
        }
        // A thread allocates while it starts: load ends when all have run something.
        let greeting: Arc<dyn Job> = Arc::new(Greeting);
        if pool.run(&greeting, None).is_err() {
            return Err(failed(std::io::Error::other("a new thread panicked")));
        }
        if let Some(core) = *lock(&pool.shared.refused) {
            return Err(EngineError::Core { core, online: online() });
        }
        pool.own = cores.first().map(|&core| (core, None));
        Ok(pool)
    }

    /// How many work together, the caller counted.
    pub fn workers(&self) -> usize {
        self.threads.len() + 1
    }

    /// Runs one job to its end on the caller and all threads. Allocates nothing.
    ///
    /// # Errors
    /// [`Stopped`] if a worker panicked; the pool stays usable.
    pub fn run(
        &mut self,
        job: &Arc<dyn Job>,
        observer: Option<&Observer<'_>>,
    ) -> Result<(), Stopped> {
        if let Some((core, thread)) = &mut self.own {
            let caller = std::thread::current().id();
            // Load has tried this core; a core that went away since only costs time.
            if *thread != Some(caller) && pin(*core).is_ok() {
                *thread = Some(caller);
            }
        }
        let shared = &*self.shared;
        if !self.threads.is_empty() {
            let mut order = lock(&shared.order);
            order.job = Some(job.clone());
            shared.busy.store(self.threads.len(), Ordering::Release);
            shared.number.fetch_add(1, Ordering::Release);
            drop(order);
            shared.given.notify_all();
        }
        work(&**job, shared, 0, observer);
        spin(shared.gate.spins, || shared.busy.load(Ordering::Acquire) == 0);
        let mut order = lock(&shared.order);
        while shared.busy.load(Ordering::Acquire) > 0 {
            order = shared.finished.wait(order).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        order.job = None;
        drop(order);
        if shared.gate.mend() { Err(Stopped) } else { Ok(()) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.order).quit = true;
        self.shared.given.notify_all();
        for thread in self.threads.drain(..) {
            // A worker catches its job's panics, so that joining cannot fail.
            let _ = thread.join();
        }
    }
}

fn serve(shared: &Shared, worker: usize) {
    let mut done = 0;
    loop {
        // Networks of one picture follow each other closely.
        spin(shared.gate.spins, || shared.number.load(Ordering::Acquire) != done);
        let mut order = lock(&shared.order);
        while shared.number.load(Ordering::Acquire) == done && !order.quit {
            order = shared.given.wait(order).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        if order.quit {
            return;
        }
        done = shared.number.load(Ordering::Acquire);
        let job = order.job.clone();
        drop(order);
        if let Some(job) = job {
            work(&*job, shared, worker, None);
        }
        let order = lock(&shared.order);
        if shared.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
            drop(order);
            shared.finished.notify_all();
        }
    }
}

fn work(job: &dyn Job, shared: &Shared, worker: usize, observer: Option<&Observer<'_>>) {
    let Shared { gate, door, .. } = shared;
    let crew = Crew { worker, workers: gate.parties, gate, door, observer };
    if catch_unwind(AssertUnwindSafe(|| job.run(&crew))).is_err() {
        gate.break_down();
        job.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Relay {
        rounds: usize,
        last: Vec<AtomicUsize>,
        late: AtomicUsize,
    }

    impl Job for Relay {
        fn run(&self, crew: &Crew<'_>) -> Result<(), Stopped> {
            for round in 0..self.rounds {
                self.last[crew.worker].store(round, Ordering::SeqCst);
                crew.barrier(|| {})?;
                let behind = self.last.iter().any(|last| last.load(Ordering::SeqCst) < round);
                self.late.fetch_add(usize::from(behind), Ordering::SeqCst);
                crew.barrier(|| {})?;
            }
            Ok(())
        }
    }

    #[test]
    fn nobody_passes_the_barrier_early() {
        for workers in 1..=4 {
            let mut pool = Pool::new(workers, &[]).unwrap();
            let relay = Arc::new(Relay {
                rounds: 200,
                last: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
                late: AtomicUsize::new(0),
            });
            let job: Arc<dyn Job> = relay.clone();
            for _ in 0..3 {
                pool.run(&job, None).unwrap();
            }
            assert_eq!(relay.late.load(Ordering::SeqCst), 0);
            assert!(relay.last.iter().all(|last| last.load(Ordering::SeqCst) == 199));
        }
    }

    struct Faulty;

    impl Job for Faulty {
        fn run(&self, crew: &Crew<'_>) -> Result<(), Stopped> {
            crew.barrier(|| {})?;
            assert!(crew.worker + 1 < crew.workers, "the last worker fails on purpose");
            crew.barrier(|| {})?;
            unreachable!("the barrier is broken");
        }
    }

    #[test]
    fn a_panic_stops_the_others_and_the_pool_lives_on() {
        for workers in 1..=3 {
            let mut pool = Pool::new(workers, &[]).unwrap();
            let faulty: Arc<dyn Job> = Arc::new(Faulty);
            assert_eq!(pool.run(&faulty, None), Err(Stopped));
            let fine: Arc<dyn Job> = Arc::new(Relay {
                rounds: 3,
                last: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
                late: AtomicUsize::new(0),
            });
            assert_eq!(pool.run(&fine, None), Ok(()));
        }
    }
}
