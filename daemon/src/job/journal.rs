//! The journal: what was accepted and answered, in a file that survives a power cut at any instant.
//!
//! One record a line: CRC-32 (IEEE) of the JSON in eight hexadecimal digits, a space, the JSON, a newline. Records are appended and
//! fsynced; a torn or damaged tail is cut when the journal is opened. When it has grown past its bound it is written anew
//! beside itself and renamed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Answer, Job};

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// A prompt was accepted; from here on it is answered, whatever happens.
    Accepted {
        /// The job.
        job: Box<Job>,
    },
    /// Its answer is on disk.
    Answered {
        /// Which job.
        job: String,
        /// What its sender gets.
        answer: Box<Answer>,
    },
    /// The broker has acknowledged its answer.
    Published {
        /// Which job.
        job: String,
    },
    /// Its answer gave way to newer ones.
    Forgotten {
        /// Which job.
        job: String,
    },
}

/// Why the journal could not be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The folder or file cannot be opened, read or written.
    #[error("the journal {} cannot be {action}: {source}; check the folder's owner and free space", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A record would pass the bound even after rewriting.
    #[error(
        "the journal would grow to {needed} bytes but journal_bytes_max is {max}; wait for jobs to finish or raise it"
    )]
    Full {
        /// Bytes with the record.
        needed: u64,
        /// The bound.
        max: u64,
    },
}

/// One record as a line.
pub fn encode(record: &Record) -> Vec<u8> {
    let json = serde_json::to_string(record).unwrap_or_default();
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes()
}

/// All whole records from the start, and how many bytes they fill; what follows was torn.
pub fn replay(bytes: &[u8]) -> (Vec<Record>, usize) {
    let mut records = Vec::new();
    let mut valid = 0;
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        let Some(record) = decode(line) else { break };
        records.push(record);
        valid += line.len();
    }
    (records, valid)
}

fn decode(line: &[u8]) -> Option<Record> {
    let text = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (crc, json) = text.split_once(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(json.as_bytes()) {
        return None;
    }
    serde_json::from_str(json).ok()
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl Journal {
    /// Opens or makes `folder/journal`, cuts a torn tail and returns its records.
    ///
    /// # Errors
    /// [`JournalError::Io`] if the file cannot be opened, read or cut.
    pub fn open(folder: &Path, bytes_max: u64) -> Result<(Self, Vec<Record>), JournalError> {
        let path = folder.join("journal");
        let io = |action| {
            let path = path.clone();
            move |source| JournalError::Io { path, action, source }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io("opened"))?;
        sync_folder(folder).map_err(io("synced"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read"))?;
        let (records, valid) = replay(&bytes);
        if valid < bytes.len() {
            log::warn!(
                "the journal's last {} bytes were torn by a crash and are cut",
                bytes.len() - valid
            );
            file.set_len(valid as u64).map_err(io("cut"))?;
            file.sync_data().map_err(io("synced"))?;
        }
        file.seek(SeekFrom::Start(valid as u64)).map_err(io("read"))?;
        release_pages(&file);
        Ok((Journal { path, file, bytes: valid as u64, bytes_max }, records))
    }

    /// Appends a record; when this returns, a power cut does not lose it.
    ///
    /// # Errors
    /// [`JournalError`]; the journal then holds what it held before.
    pub fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        let line = encode(record);
        let needed = self.bytes + line.len() as u64;
        if needed > self.bytes_max {
            return Err(JournalError::Full { needed, max: self.bytes_max });
        }
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // A half-written line would hide every later one from replay.
            let undone = self
                .file
                .set_len(self.bytes)
                .and_then(|()| self.file.seek(SeekFrom::Start(self.bytes)));
            if let Err(error) = undone {
                log::error!("a half-written journal line could not be undone: {error}");
            }
            return Err(self.error("written")(source));
        }
        release_pages(&self.file);
        self.bytes = needed;
        Ok(())
    }

    /// Whether it is past half its bound, so that rewriting it pays.
    pub fn wants_rewriting(&self) -> bool {
        self.bytes > self.bytes_max / 2
    }

    /// Replaces all records by these, atomically.
    ///
    /// # Errors
    /// [`JournalError::Io`]; the journal then holds what it held before.
    pub fn rewrite<'a>(
        &mut self,
        records: impl Iterator<Item = &'a Record>,
    ) -> Result<(), JournalError> {
        let folder = self.path.parent().unwrap_or(Path::new(".")).to_owned();
        let mut temporary =
            tempfile::NamedTempFile::new_in(&folder).map_err(self.error("rewritten"))?;
        let mut bytes = 0;
        for record in records {
            let line = encode(record);
            bytes += line.len() as u64;
            temporary.write_all(&line).map_err(self.error("rewritten"))?;
        }
        temporary.as_file().sync_all().map_err(self.error("synced"))?;
        self.file =
            temporary.persist(&self.path).map_err(|error| self.error("renamed")(error.error))?;
        sync_folder(&folder).map_err(self.error("synced"))?;
        release_pages(&self.file);
        self.bytes = bytes;
        Ok(())
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn error(&self, action: &'static str) -> impl FnOnce(io::Error) -> JournalError + use<> {
        let path = self.path.clone();
        move |source| JournalError::Io { path, action, source }
    }
}

/// Lets the page cache of a file go, which counts in the process's memory group: pages on disk at once, others are on
/// their way there and go when this is called again.
pub fn release_pages(file: &File) {
    if let Err(error) = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed) {
        log::debug!("the page cache of a file stays: {error}");
    }
}

/// Makes names in a folder survive a power cut.
///
/// # Errors
/// If the folder cannot be opened or synced.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(job: &str) -> Record {
        Record::Published { job: job.to_owned() }
    }

    #[test]
    fn survives_reopening_and_a_cut_at_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, records) = Journal::open(folder.path(), 1 << 20).unwrap();
        assert!(records.is_empty());
        let written = [published("a"), published("b"), published("c")];
        for record in &written {
            journal.append(record).unwrap();
        }
        let bytes = std::fs::read(folder.path().join("journal")).unwrap();
        assert_eq!(bytes.len() as u64, journal.bytes());
        let line = bytes.len() / 3;
        for cut in 0..=bytes.len() {
            std::fs::write(folder.path().join("journal"), &bytes[..cut]).unwrap();
            let (mut journal, records) = Journal::open(folder.path(), 1 << 20).unwrap();
            assert_eq!(records, written[..cut / line]);
            journal.append(&published("d")).unwrap();
            let (_, records) = Journal::open(folder.path(), 1 << 20).unwrap();
            assert_eq!(records.len(), cut / line + 1);
        }
    }

    #[test]
    fn cuts_from_the_first_damaged_line() {
        let mut bytes = encode(&published("a"));
        let first = bytes.len();
        bytes.extend(encode(&published("b")));
        bytes[first + 20] ^= 1;
        assert_eq!(replay(&bytes), (vec![published("a")], first));
    }

    #[test]
    fn is_bounded_and_shrinks_when_rewritten() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path(), 200).unwrap();
        let error = std::iter::from_fn(|| Some(journal.append(&published("a"))))
            .find_map(Result::err)
            .unwrap();
        assert!(matches!(error, JournalError::Full { max: 200, .. }));
        assert!(journal.wants_rewriting());
        journal.rewrite([published("z")].iter()).unwrap();
        journal.append(&published("y")).unwrap();
        let (_, records) = Journal::open(folder.path(), 200).unwrap();
        assert_eq!(records, [published("z"), published("y")]);
    }
}
