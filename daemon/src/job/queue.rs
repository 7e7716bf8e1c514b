//! The queue: a fixed number of places, highest priority first, then first come, first served.

use heapless::Vec;

/// Places that the daemon has room for; the configuration may allow fewer.
pub const QUEUE_LENGTH_MAX: usize = 256;

/// All places are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub struct QueueFull;

/// Jobs that a restart may bring back: those that waited, the one that was drawn, and as many whose answers the broker did
/// not have and whose pictures a power cut took.
const PLACES: usize = 2 * QUEUE_LENGTH_MAX + 2;

/// Jobs by name, in the order in which they will be drawn.
#[derive(Debug, Default)]
pub struct Queue {
    places: Vec<Place, PLACES>,
    capacity: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    priority: i8,
    job: String,
}

impl Queue {
    /// A queue of `capacity` places.
    ///
    /// # Panics
    /// If `capacity` is 0 or above [`QUEUE_LENGTH_MAX`]; the configuration's check has ruled that out.
    pub fn new(capacity: usize) -> Self {
        assert!((1..=QUEUE_LENGTH_MAX).contains(&capacity), "a queue of {capacity} places");
        Queue { places: Vec::new(), capacity }
    }

    /// Jobs that wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether the next job would be refused.
    pub fn is_full(&self) -> bool {
        self.places.len() >= self.capacity
    }

    /// Jobs that may wait.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Puts a job behind those of the same or a higher priority.
    ///
    /// # Errors
    /// [`QueueFull`] if all places are taken.
    pub fn push(&mut self, job: &str, priority: i8) -> Result<(), QueueFull> {
        if self.is_full() {
            return Err(QueueFull);
        }
        self.insert(job, priority)
    }

    /// As [`Queue::push`], for jobs that were accepted before a restart, under a configuration that may have been larger.
    ///
    /// # Errors
    /// [`QueueFull`] if the fixed room itself is full: never, with what [`super::Machine::decide`] lets in.
    pub fn restore(&mut self, job: &str, priority: i8) -> Result<(), QueueFull> {
        self.insert(job, priority)
    }

    fn insert(&mut self, job: &str, priority: i8) -> Result<(), QueueFull> {
        let at = self
            .places
            .iter()
            .position(|place| place.priority < priority)
            .unwrap_or(self.places.len());
        self.places.insert(at, Place { priority, job: job.to_owned() }).map_err(|_| QueueFull)
    }

    /// Takes the next job.
    pub fn pop(&mut self) -> Option<String> {
        if self.places.is_empty() { None } else { Some(self.places.remove(0).job) }
    }

    /// Takes a job out; false if it does not wait.
    pub fn remove(&mut self, job: &str) -> bool {
        let at = self.places.iter().position(|place| place.job == job);
        at.map(|at| self.places.remove(at)).is_some()
    }

    /// All that wait, the next first.
    pub fn names(&self) -> std::vec::Vec<String> {
        self.places.iter().map(|place| place.job.clone()).collect()
    }

    /// How many jobs are drawn before this one; `None` if it does not wait.
    pub fn position(&self, job: &str) -> Option<usize> {
        self.places.iter().position(|place| place.job == job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_finds_room_for_all_that_was_accepted() {
        let mut queue = Queue::new(QUEUE_LENGTH_MAX);
        for number in 0..2 * QUEUE_LENGTH_MAX + 2 {
            queue.restore(&number.to_string(), 0).unwrap();
        }
        assert_eq!(queue.push("one more", 0), Err(QueueFull));
    }

    #[test]
    fn orders_by_priority_then_arrival_and_refuses_when_full() {
        let mut queue = Queue::new(4);
        for (job, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.push(job, priority).unwrap();
        }
        assert_eq!(queue.push("e", 9), Err(QueueFull));
        assert_eq!(queue.position("a"), Some(2));
        assert!(queue.remove("a") && !queue.remove("a"));
        let order: std::vec::Vec<String> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, ["b", "d", "c"]);
    }
}
