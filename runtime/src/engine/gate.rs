//! Where the workers of a crew meet.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

use super::pool::Stopped;

/// Where workers meet: a barrier that spins, then parks.
pub(super) struct Gate {
    pub parties: usize,
    /// Turns before it parks.
    pub spins: u32,
    arrived: AtomicUsize,
    generation: AtomicUsize,
    broken: AtomicBool,
    /// Workers that have given up spinning. Who opens and finds none saves a call of the system.
    parked: AtomicUsize,
    lock: Mutex<()>,
    opened: Condvar,
}

impl Gate {
    /// For so many.
    pub fn new(parties: usize, spins: u32) -> Self {
        Gate {
            parties,
            spins,
            arrived: AtomicUsize::new(0),
            generation: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            parked: AtomicUsize::new(0),
            lock: Mutex::new(()),
            opened: Condvar::new(),
        }
    }

    /// Waits for all; the last one to come runs `last` before any goes on.
    ///
    /// # Errors
    /// [`Stopped`] if the gate is broken.
    pub fn wait(&self, last: impl FnOnce()) -> Result<(), Stopped> {
        let generation = self.generation.load(Ordering::Acquire);
        if self.broken.load(Ordering::Acquire) {
            return Err(Stopped);
        }
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.parties {
            last();
            self.arrived.store(0, Ordering::Release);
            self.open();
        } else {
            self.sleep(generation);
        }
        if self.broken.load(Ordering::Acquire) { Err(Stopped) } else { Ok(()) }
    }

    fn open(&self) {
        if self.parties == 1 {
            return;
        }
        // In one order with `sleep`: it counts itself first and looks at the generation then, so that one of the two is seen.
        self.generation.fetch_add(1, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst) > 0 {
            // Who has counted itself either waits by now or sees the new generation.
            drop(lock(&self.lock));
            self.opened.notify_all();
        }
    }

    fn sleep(&self, generation: usize) {
        if spin(self.spins, || self.generation.load(Ordering::Acquire) != generation) {
            return;
        }
        let mut guard = lock(&self.lock);
        self.parked.fetch_add(1, Ordering::SeqCst);
        while self.generation.load(Ordering::SeqCst) == generation
            && !self.broken.load(Ordering::Acquire)
        {
            guard = self.opened.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        self.parked.fetch_sub(1, Ordering::SeqCst);
    }

    /// Lets all go that wait, and who comes until [`Gate::mend`].
    pub fn break_down(&self) {
        self.broken.store(true, Ordering::Release);
        self.open();
    }
    /// Makes it whole again once all have left; says whether it was broken.
    pub fn mend(&self) -> bool {
        self.arrived.store(0, Ordering::Release);
        self.broken.swap(false, Ordering::AcqRel)
    }
}

/// Waits for a condition without giving up the core; false if it did not come true.
pub(super) fn spin(turns: u32, done: impl Fn() -> bool) -> bool {
    for _ in 0..turns {
        if done() {
            return true;
        }
        std::hint::spin_loop();
    }
    false
}

/// What a mutex guards, whoever panicked.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
