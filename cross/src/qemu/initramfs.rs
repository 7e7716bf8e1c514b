//! A root file system in memory: a gzipped archive in the kernel's `newc` form.

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use std::io::Write;
use std::path::Path;

/// An archive being written.
pub struct Initramfs<W: Write> {
    out: GzEncoder<W>,
    inode: u32,
    written: usize,
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

impl<W: Write> Initramfs<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self { out: GzEncoder::new(out, Compression::default()), inode: 0, written: 0 }
    }

    /// Adds a folder; those above it must be there.
    pub fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(path, DIRECTORY, &[])
    }

    /// Adds an executable file.
    pub fn program(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.entry(path, PROGRAM, bytes)
    }

    /// Adds a file of the host as an executable.
    pub fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let bytes =
            std::fs::read(from).with_context(|| format!("{} cannot be read", from.display()))?;
        self.program(path, &bytes)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, to: &str) -> Result<()> {
        self.entry(path, LINK, to.as_bytes())
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Result<W> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.out.finish()?)
    }

    /// Header (six digits of magic, thirteen fields of eight hexadecimal digits), name, contents, each padded to four bytes.
    fn entry(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let size =
            u32::try_from(bytes.len()).context("a file in the archive is larger than 4 GiB")?;
        let name_bytes = path.len() as u32 + 1;
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_bytes, 0];
        self.inode += 1;
        let mut header = String::from("070701");
        for field in fields {
            header += &format!("{field:08x}");
        }
        self.put(header.as_bytes())?;
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.pad()?;
        self.put(bytes)?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len();
        Ok(self.out.write_all(bytes)?)
    }

    fn pad(&mut self) -> Result<()> {
        let zeros = self.written.next_multiple_of(4) - self.written;
        self.put(&[0; 3][..zeros])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_archive_is_what_the_kernel_reads() {
        let mut archive = Initramfs::new(Vec::new());
        archive.directory("bin").unwrap();
        archive.program("bin/a", b"12345").unwrap();
        archive.link("bin/b", "a").unwrap();
        let packed = archive.finish().unwrap();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
        let mut at = 0;
        let mut seen = Vec::new();
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |index: usize| {
                let start = at + 6 + index * 8;
                usize::from_str_radix(std::str::from_utf8(&bytes[start..start + 8]).unwrap(), 16)
                    .unwrap()
            };
            let (mode, size, name_bytes) = (field(1), field(6), field(11));
            let name =
                String::from_utf8_lossy(&bytes[at + 110..at + 110 + name_bytes - 1]).into_owned();
            let data = (at + 110 + name_bytes).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(data, bytes.len());
                break;
            }
            seen.push((name, mode, bytes[data..data + size].to_vec()));
            at = (data + size).next_multiple_of(4);
        }
        assert_eq!(seen[0], ("bin".into(), 0o040_755, vec![]));
        assert_eq!(seen[1], ("bin/a".into(), 0o100_755, b"12345".to_vec()));
        assert_eq!(seen[2], ("bin/b".into(), 0o120_777, b"a".to_vec()));
    }
}
