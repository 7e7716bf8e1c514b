//! The map of a pack's file, and letting go of parts of it.
//!
//! Enters: a path. Leaves: bytes that the kernel reads from storage when they are touched. Never: writes.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;

use memmap2::{Advice, Mmap, UncheckedAdvice};
use rustix::fs::{Advice as FileAdvice, OFlags, fadvise};

/// The largest block in which Linux caches a file.
pub(super) const CACHE_BLOCK_BYTES: usize = 2 << 20;

/// A file and its map.
#[derive(Debug)]
pub(super) struct Mapped {
    file: File,
    map: Mmap,
    /// The same file, read past the page cache; `None` where its file system cannot.
    direct: OnceLock<Option<File>>,
}

impl Mapped {
    /// Maps a whole file.
    ///
    /// # Safety
    /// Until the map is dropped, nobody changes or shortens the file. Packs are installed by rename, which
    /// leaves the mapped file as it is, and are never edited in place.
    ///
    /// # Errors
    /// What the system says.
    unsafe fn map(file: File) -> io::Result<Self> {
        // SAFETY: the caller promises that the file stays as it is.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Mapped { file, map, direct: OnceLock::new() })
    }

    /// Maps an installed pack.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: an installed pack is never edited in place but replaced by rename (`super`, "Never edited
        // in place"); this is the duty of whoever installs packs, and plantain's own writer obeys it.
        unsafe { Self::map(file) }
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Reads bytes of the file from `start` on, past the page cache where that can be: `start`, the length and the memory
    /// lie on multiples of [`READ_ALIGN_BYTES`](super::READ_ALIGN_BYTES). What lies behind the end of the file is anything.
    pub fn read(&self, start: usize, out: &mut [u8]) -> io::Result<()> {
        // Opened by its number, as another file may have its name by now.
        let open = || {
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let flags = OFlags::DIRECT.bits() as i32;
            File::options().read(true).custom_flags(flags).open(path).ok()
        };
        let wanted = out.len().min(self.map.len().saturating_sub(start));
        if let Some(direct) = self.direct.get_or_init(open) {
            match read_at(direct, start, out, wanted) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                done => return done,
            }
        }
        read_at(&self.file, start, out, wanted)?;
        self.drop_cached(start..start + wanted)
    }

    /// Asks for a range of the file to be read ahead; returns before it is.
    pub fn prefetch(&self, range: Range<usize>) -> io::Result<()> {
        let range = range.start.min(self.map.len())..range.end.min(self.map.len());
        if range.is_empty() {
            return Ok(());
        }
        self.map.advise_range(Advice::WillNeed, range.start, range.len())
    }

    /// Switches the system's own read-ahead on page faults off or on again.
    pub fn read_ahead(&self, on: bool) -> io::Result<()> {
        self.map.advise(if on { Advice::Normal } else { Advice::Random })
    }

    /// Lets go of the whole pages of a range, in the process and in the page cache.
    pub fn release(&self, range: Range<usize>) -> io::Result<()> {
        let Range { start, end } = self.unmap(range)?;
        if start < end { self.drop_cached(start..end) } else { Ok(()) }
    }

    /// As [`Mapped::release`], with the rest of the block of the page cache in which the range ends.
    pub fn release_blocks(&self, range: Range<usize>) -> io::Result<()> {
        let Range { start, end } = self.unmap(range)?;
        if start < end {
            self.drop_cached(start..end.next_multiple_of(CACHE_BLOCK_BYTES))
        } else {
            Ok(())
        }
    }

    /// Lets go of a range in the page cache.
    fn drop_cached(&self, Range { start, end }: Range<usize>) -> io::Result<()> {
        // The page cache holds a file in blocks of up to 2 MiB and drops none that reaches out of the range: begin early,
        // so that the block between this range and the one released before it goes, too. Pages that are mapped stay.
        let start = start / CACHE_BLOCK_BYTES * CACHE_BLOCK_BYTES;
        let length = std::num::NonZeroU64::new((end - start) as u64);
        fadvise(&self.file, start as u64, length, FileAdvice::DontNeed)?;
        Ok(())
    }

    /// Lets go of the whole pages of a range in the process alone, and says which bytes those are.
    pub fn unmap(&self, range: Range<usize>) -> io::Result<Range<usize>> {
        let page = rustix::param::page_size();
        let start = range.start.next_multiple_of(page);
        // The page that holds the end of the file is whole, too.
        let end =
            if range.end >= self.map.len() { self.map.len() } else { range.end / page * page };
        if start < end {
            let (advice, length) = (UncheckedAdvice::DontNeed, end - start);
            // SAFETY: the map is shared, read-only and backed by a file that does not change, so that the next
            // access reads the same bytes from it.
            unsafe { self.map.unchecked_advise_range(advice, start, length)? };
        }
        Ok(start..end)
    }
}

/// Reads `wanted` bytes; all of `out` may be asked for, as reads past the page cache take whole blocks.
fn read_at(file: &File, start: usize, out: &mut [u8], wanted: usize) -> io::Result<()> {
    let mut done = 0;
    while done < wanted {
        match file.read_at(&mut out[done..], (start + done) as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => done += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
