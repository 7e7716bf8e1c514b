//! Archives whose bytes depend on their contents alone.

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use std::io::Write;

/// A file to be installed.
pub struct Entry {
    /// Path below the root, without a leading slash.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Contents.
    pub bytes: Vec<u8>,
}

impl Entry {
    /// A file that anyone may read.
    pub fn text(path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), mode: 0o644, bytes: bytes.into() }
    }

    /// A file that anyone may run.
    pub fn program(path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), mode: 0o755, bytes: bytes.into() }
    }
}

/// A gzipped tar of the entries, with the folders above them, each path after `prefix`.
pub fn tar_gz(entries: &[Entry], prefix: &str, time: u64) -> Result<Vec<u8>> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut folders = std::collections::BTreeSet::new();
    for entry in &sorted {
        let mut at = entry.path.as_str();
        while let Some((above, _)) = at.rsplit_once('/') {
            folders.insert(above.to_string());
            at = above;
        }
    }
    let mut tar = tar::Builder::new(Vec::new());
    for folder in folders {
        let mut header = header(0o755, 0, time)?;
        header.set_entry_type(tar::EntryType::Directory);
        tar.append_data(&mut header, format!("{prefix}{folder}/"), std::io::empty())?;
    }
    for entry in sorted {
        let mut header = header(entry.mode, entry.bytes.len() as u64, time)?;
        tar.append_data(&mut header, format!("{prefix}{}", entry.path), &entry.bytes[..])?;
    }
    gzip(&tar.into_inner()?)
}

/// Gzip without name and time.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = GzBuilder::new().write(Vec::new(), Compression::best());
    out.write_all(bytes)?;
    out.finish().context("gzip")
}

fn header(mode: u32, size: u64, time: u64) -> Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_username("root")?;
    header.set_groupname("root")?;
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    Ok(header)
}

/// An `ar` archive, as Debian packages are.
pub fn ar(members: &[(&str, &[u8])], time: u64) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        let size = bytes.len();
        out.extend(format!("{name:<16}{time:<12}0     0     100644  {size:<10}`\n").as_bytes());
        out.extend_from_slice(bytes);
        if size % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn entries() -> Vec<Entry> {
        vec![Entry::program("usr/bin/b", "2"), Entry::text("etc/a", "1")]
    }

    #[test]
    fn the_same_files_make_the_same_bytes_in_any_order() {
        let mut turned = entries();
        turned.reverse();
        assert_eq!(tar_gz(&entries(), "", 5).unwrap(), tar_gz(&turned, "", 5).unwrap());
        assert_ne!(tar_gz(&entries(), "", 5).unwrap(), tar_gz(&entries(), "", 6).unwrap());
    }

    #[test]
    fn folders_come_first_and_modes_stay() {
        let packed = tar_gz(&entries(), "", 5).unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&packed[..]));
        let mut seen = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            seen.push(format!("{path} {:o} {text}", entry.header().mode().unwrap()));
        }
        let expected =
            ["etc/ 755 ", "usr/ 755 ", "usr/bin/ 755 ", "etc/a 644 1", "usr/bin/b 755 2"];
        assert_eq!(seen, expected);
    }

    #[test]
    fn ar_members_start_on_even_bytes() {
        let bytes = ar(&[("a", b"1"), ("b", b"22")], 7);
        assert_eq!(&bytes[..8], b"!<arch>\n");
        assert_eq!(&bytes[8..24], b"a               ");
        assert_eq!(bytes.len(), 8 + 60 + 2 + 60 + 2);
        assert_eq!(&bytes[66..68], b"`\n");
    }
}
