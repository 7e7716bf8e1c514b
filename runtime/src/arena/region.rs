//! Views of planned regions: the one file of the arena that is allowed to be unsafe.
//!
//! [`Arena`] gives out slices that the borrow checker cannot tell apart, because several workers write
//! different rows of one region at a time. What keeps them apart is the plan: `plan::check` proves that
//! regions that live at the same time do not overlap, a barrier lies between steps, and inside a step the
//! drivers split rows or panels by one pure function of worker and count. In this crate's own tests a ledger
//! records every view taken between two barriers and fails on any overlap of two workers.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use bytemuck::Pod;
use rustix::mm::{Advice, madvise};

use super::{ARENA_ALIGN, ArenaError, BASE_ALIGN, align_up};

/// One allocation on a page, zeroed when made, shared by all workers.
pub struct Arena {
    base: NonNull<u8>,
    bytes: usize,
    #[cfg(test)]
    ledger: ledger::Ledger,
}

// SAFETY: `base` is an allocation that the arena owns; who may touch which part of it when is the views' duty,
// stated at `read` and `write`.
unsafe impl Send for Arena {}
// SAFETY: as above; a shared arena gives out only views.
unsafe impl Sync for Arena {}

impl Arena {
    /// Takes `bytes`, rounded up to a line, from the system.
    ///
    /// # Errors
    /// [`ArenaError::OutOfMemory`].
    pub fn new(bytes: usize) -> Result<Self, ArenaError> {
        let bytes = align_up(bytes.max(1));
        let layout = Layout::from_size_align(bytes, BASE_ALIGN)
            .map_err(|_| ArenaError::OutOfMemory { bytes })?;
        // SAFETY: the layout has a size above zero.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).ok_or(ArenaError::OutOfMemory { bytes })?;
        Ok(Arena {
            base,
            bytes,
            #[cfg(test)]
            ledger: ledger::Ledger::default(),
        })
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// `len` values at byte `offset`, to read.
    ///
    /// # Contract
    /// While the view lives, nobody writes any of these bytes: the caller follows a checked plan.
    ///
    /// # Panics
    /// If the range leaves the arena or `offset` is not aligned for `T`.
    pub(crate) fn read<T: Pod>(&self, worker: usize, offset: usize, len: usize) -> &[T] {
        let base = self.locate::<T>(offset, len);
        self.note(worker, offset, len * size_of::<T>(), false);
        // SAFETY: `locate` checked bounds and alignment, the bytes are initialised (zeroed when made) and any
        // bytes are a `T: Pod`; the contract rules writers out.
        unsafe { std::slice::from_raw_parts(base, len) }
    }

    /// `len` values at byte `offset`, to write.
    ///
    /// # Contract
    /// While the view lives, nobody else reads or writes any of these bytes: the caller follows a checked
    /// plan and stays in its share.
    ///
    /// # Panics
    /// If the range leaves the arena or `offset` is not aligned for `T`.
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn write<T: Pod>(&self, worker: usize, offset: usize, len: usize) -> &mut [T] {
        let base = self.locate::<T>(offset, len);
        self.note(worker, offset, len * size_of::<T>(), true);
        // SAFETY: `locate` checked bounds and alignment, the bytes are initialised and any bytes are a
        // `T: Pod`; the contract makes this view the only one.
        unsafe { std::slice::from_raw_parts_mut(base, len) }
    }

    /// Gives the memory back to the system, as far as it is whole pages: their bytes are zeros when they are next touched.
    ///
    /// # Contract
    /// No view is alive.
    pub(crate) fn give_back(&self) {
        let page = rustix::param::page_size();
        let (start, end) = (self.base.addr().get(), self.base.addr().get() + self.bytes);
        let (first, last) = (start.next_multiple_of(page), end / page * page);
        if first < last {
            // SAFETY: the range begins in the allocation, as `first` is below its end.
            let at = unsafe { self.base.as_ptr().add(first - start) };
            // SAFETY: these are whole pages of the allocation, private memory that the allocator gave out, so that they
            // read as zeros from now on; the contract rules views out. Where the system refuses, they stay as they are.
            let _ = unsafe { madvise(at.cast(), last - first, Advice::LinuxDontNeed) };
        }
    }

    fn locate<T: Pod>(&self, offset: usize, len: usize) -> *mut T {
        let end = len.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset));
        assert!(
            end.is_some_and(|end| end <= self.bytes),
            "a view of {len} values at byte {offset} leaves an arena of {} bytes",
            self.bytes
        );
        assert!(
            offset.is_multiple_of(align_of::<T>()) && align_of::<T>() <= ARENA_ALIGN,
            "a view at byte {offset} is not aligned to {}",
            align_of::<T>()
        );
        // SAFETY: `offset` is inside the allocation or one past its end, as just asserted.
        unsafe { self.base.as_ptr().add(offset) }.cast()
    }

    #[cfg(not(test))]
    #[inline(always)]
    fn note(&self, _worker: usize, _offset: usize, _bytes: usize, _writes: bool) {}

    #[cfg(test)]
    fn note(&self, worker: usize, offset: usize, bytes: usize, writes: bool) {
        self.ledger.note(worker, offset, bytes, writes);
    }

    /// Tells the ledger of this crate's tests that a barrier was passed.
    pub(crate) fn next_phase(&self) {
        #[cfg(test)]
        self.ledger.clear();
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if let Ok(layout) = Layout::from_size_align(self.bytes, BASE_ALIGN) {
            // SAFETY: `base` came from `alloc_zeroed` with this very layout and is given back once.
            unsafe { dealloc(self.base.as_ptr(), layout) };
        }
    }
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arena").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod ledger {
    use std::sync::Mutex;

    #[derive(Clone, Copy)]
    struct Entry {
        worker: usize,
        start: usize,
        end: usize,
        writes: bool,
    }

    /// Views taken since the last barrier.
    #[derive(Default)]
    pub(super) struct Ledger(Mutex<Vec<Entry>>);

    impl Ledger {
        pub(super) fn note(&self, worker: usize, offset: usize, bytes: usize, writes: bool) {
            let new = Entry { worker, start: offset, end: offset + bytes, writes };
            let mut entries = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            for old in entries.iter() {
                let apart = old.worker == worker || new.end <= old.start || old.end <= new.start;
                assert!(
                    apart || !(writes || old.writes),
                    "workers {} and {worker} meet in bytes {}..{}",
                    old.worker,
                    new.start.max(old.start),
                    new.end.min(old.end)
                );
            }
            match entries.last_mut() {
                Some(last)
                    if last.worker == worker && last.writes == writes && last.end == new.start =>
                {
                    last.end = new.end;
                }
                _ => entries.push(new),
            }
        }

        pub(super) fn clear(&self) {
            self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_typed_and_zeroed() {
        let arena = Arena::new(100).unwrap();
        assert_eq!(arena.bytes(), 128);
        assert!(arena.read::<f32>(0, 0, 32).iter().all(|&x| x == 0.0));
        arena.write::<f32>(0, 64, 2).copy_from_slice(&[1.0, 2.0]);
        assert_eq!(arena.read::<f32>(0, 64, 3), [1.0, 2.0, 0.0]);
    }

    #[test]
    fn memory_is_given_back_and_comes_again() {
        let arena = Arena::new(5 * BASE_ALIGN + 100).unwrap();
        for _ in 0..2 {
            arena.write::<u8>(0, 0, arena.bytes()).fill(9);
            arena.give_back();
            let page = rustix::param::page_size();
            let bytes: &[u8] = arena.read(0, 0, arena.bytes());
            assert!(bytes.iter().all(|&x| x == 0 || x == 9));
            assert!(page > BASE_ALIGN || bytes[..5 * BASE_ALIGN].iter().all(|&x| x == 0));
            arena.next_phase();
        }
    }

    #[test]
    #[should_panic(expected = "leaves an arena of 64 bytes")]
    fn a_view_outside_is_refused() {
        Arena::new(64).unwrap().read::<u8>(0, 60, 5);
    }

    #[test]
    #[should_panic(expected = "not aligned")]
    fn a_crooked_view_is_refused() {
        Arena::new(64).unwrap().read::<f32>(0, 2, 1);
    }

    #[test]
    #[should_panic(expected = "workers 0 and 1 meet in bytes 8..16")]
    fn the_ledger_sees_two_workers_meet() {
        let arena = Arena::new(64).unwrap();
        arena.write::<u8>(0, 0, 16);
        arena.next_phase();
        arena.write::<u8>(0, 0, 16);
        arena.read::<u8>(1, 8, 16);
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        assert!(matches!(Arena::new(usize::MAX / 2), Err(ArenaError::OutOfMemory { .. })));
    }
}
