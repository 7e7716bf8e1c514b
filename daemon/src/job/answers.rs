//! Pictures that were drawn and may be asked for again: one file each, `answers/JOB.INDEX`.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::journal::release_pages;
use super::{Answer, Format};

/// How often the page cache of a new file is let go: the first time starts writing it to disk.
const RELEASES: u32 = 3;
/// Files whose page cache is still to be let go; beyond that the oldest are left to the system.
const FRESH_MAX: usize = 256;

/// The folder of pictures.
#[derive(Clone, Debug)]
pub struct Answers {
    folder: PathBuf,
    fresh: VecDeque<(PathBuf, u32)>,
}

impl Answers {
    /// Opens or makes `state_dir/answers`.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let folder = state_dir.join("answers");
        fs::create_dir_all(&folder)?;
        Ok(Answers { folder, fresh: VecDeque::new() })
    }

    fn file(&self, job: &str, index: usize) -> PathBuf {
        self.folder.join(format!("{job}.{index}"))
    }

    /// Stores a job's pictures. They are not synced: that would cost more than all the rest of answering, and what a power cut
    /// damages is found by its hash ([`Answers::holds`]) and drawn again, to the same bytes.
    ///
    /// # Errors
    /// If a file cannot be written; what was written of this job is removed.
    pub fn store(&mut self, job: &str, images: &[(Format, Vec<u8>)]) -> io::Result<()> {
        let stored = images.iter().enumerate().try_for_each(|(index, (_, image))| {
            let file = self.file(job, index);
            let mut temporary = tempfile::NamedTempFile::new_in(&self.folder)?;
            temporary.write_all(image)?;
            temporary.persist(&file).map_err(|error| error.error)?;
            self.fresh.push_back((file, RELEASES));
            Ok(())
        });
        if stored.is_err() {
            self.remove(job, images.len());
        }
        stored
    }

    /// Lets the page cache of what was stored go, a little later than storing it so that nobody waits for the disk. Call it
    /// about once a second.
    pub fn release(&mut self) {
        while self.fresh.len() > FRESH_MAX {
            self.fresh.pop_front();
        }
        self.fresh.retain_mut(|(file, rounds)| {
            if let Ok(file) = File::open(file) {
                release_pages(&file);
            }
            *rounds -= 1;
            *rounds > 0
        });
    }

    /// Whether all pictures of an answer are there, unharmed.
    pub fn holds(&self, job: &str, answer: &Answer) -> bool {
        answer.images.iter().enumerate().all(|(index, _)| {
            let said = answer.result["images"][index]["sha256"].as_str();
            self.read(job, index)
                .is_ok_and(|image| Some(plantain::hash::sha256(&image).as_str()) == said)
        })
    }

    /// Reads one picture.
    ///
    /// # Errors
    /// If the file is gone or unreadable.
    pub fn read(&self, job: &str, index: usize) -> io::Result<Vec<u8>> {
        fs::read(self.file(job, index))
    }

    /// Removes a job's pictures; missing ones are no error.
    pub fn remove(&self, job: &str, images: usize) {
        for index in 0..images {
            let file = self.file(job, index);
            if let Err(error) = fs::remove_file(&file)
                && error.kind() != io::ErrorKind::NotFound
            {
                log::warn!("the old answer {} cannot be removed: {error}", file.display());
            }
        }
    }

    /// Removes every file that no known job owns: leftovers of a crash.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn sweep(&self, known: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let job =
                name.to_str().and_then(|name| name.rsplit_once('.')).map_or("", |(job, _)| job);
            if !known(job) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}
