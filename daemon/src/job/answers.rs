//! Pictures that were drawn and may be asked for again: one file each, `answers/JOB.INDEX`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Answer, Format};

/// The folder of pictures.
#[derive(Clone, Debug)]
pub struct Answers {
    folder: PathBuf,
}

impl Answers {
    /// Opens or makes `state_dir/answers`.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let folder = state_dir.join("answers");
        fs::create_dir_all(&folder)?;
        Ok(Answers { folder })
    }

    fn file(&self, job: &str, index: usize) -> PathBuf {
        self.folder.join(format!("{job}.{index}"))
    }

    /// Stores a job's pictures. They are not synced: that would cost more than all the rest of answering, and what a power cut
    /// damages is found by its hash ([`Answers::holds`]) and drawn again, to the same bytes.
    ///
    /// # Errors
    /// If a file cannot be written; what was written of this job is removed.
    pub fn store(&self, job: &str, images: &[(Format, Vec<u8>)]) -> io::Result<()> {
        let stored = images.iter().enumerate().try_for_each(|(index, (_, image))| {
            let mut temporary = tempfile::NamedTempFile::new_in(&self.folder)?;
            temporary.write_all(image)?;
            temporary.persist(self.file(job, index)).map(drop).map_err(|error| error.error)
        });
        if stored.is_err() {
            self.remove(job, images.len());
        }
        stored
    }

    /// Whether all pictures of an answer are there, unharmed.
    pub fn holds(&self, job: &str, answer: &Answer) -> bool {
        answer.images.iter().enumerate().all(|(index, _)| {
            let said = answer.result["images"][index]["sha256"].as_str();
            self.read(job, index)
                .is_ok_and(|image| Some(crate::report::sha256(&image).as_str()) == said)
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
