//! What an emulated board boots: Debian's kernel and busybox for arm64, and a root file system of our own.

use super::initramfs::Initramfs;
use crate::command::Run;
use crate::setup::debian;
use crate::workspace;
use anyhow::{Context, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Modules that the disks and the network need, in loading order.
const MODULES: [&str; 10] = [
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "drivers/virtio/virtio_mmio",
    "drivers/net/virtio_net",
    "drivers/block/virtio_blk",
];

/// Busybox commands that the guest's scripts use.
const COMMANDS: [&str; 30] = [
    "awk",
    "cat",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dmesg",
    "echo",
    "free",
    "grep",
    "head",
    "insmod",
    "ip",
    "kill",
    "ls",
    "mkdir",
    "mount",
    "poweroff",
    "rm",
    "sed",
    "sh",
    "sha256sum",
    "sleep",
    "sync",
    "tail",
    "tr",
    "umount",
    "uname",
    "wc",
];

/// Debian's name of its newest kernel for arm64 machines that are emulated.
const KERNEL: &str = "linux-image-cloud-arm64:arm64";

/// Its static busybox.
const BUSYBOX: &str = "busybox-static:arm64";

/// Files of Debian's packages, unpacked.
pub struct Base {
    files: PathBuf,
}

impl Base {
    /// Fetches and unpacks the packages, once.
    pub fn ensure() -> Result<Self> {
        let folder = workspace::target_dir().join("qemu");
        let files = folder.join("files");
        let base = Self { files };
        if base.kernel().is_ok() && base.busybox().exists() {
            return Ok(base);
        }
        let debs = folder.join("debs");
        std::fs::create_dir_all(&debs)?;
        debian::download(&debs, &[BUSYBOX.into()], "arm64")
            .context("emulated boards boot Debian's kernel and busybox")?;
        debian::download(&debs, &[debian::stands_for(KERNEL)?], "arm64")?;
        for entry in std::fs::read_dir(&debs)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                Run::new("dpkg-deb").arg("-x").arg(&path).arg(&base.files).output()?;
            }
        }
        base.kernel()?;
        Ok(base)
    }

    /// The kernel's image.
    pub fn kernel(&self) -> Result<PathBuf> {
        only(&self.files.join("boot"), "vmlinuz-")
    }

    fn busybox(&self) -> PathBuf {
        self.files.join("bin/busybox")
    }

    /// Writes a root file system: the first process, busybox, modules, the job, and further programs (name in `/bin`, file).
    pub fn write_root(&self, to: &Path, job: &str, programs: &[(&str, &Path)]) -> Result<()> {
        let modules = only(&self.files.join("lib/modules"), "")?.join("kernel");
        let mut root = Initramfs::new(File::create(to)?);
        for folder in ["bin", "dev", "proc", "sys", "tmp", "modules", "pack", "state", "run"] {
            root.directory(folder)?;
        }
        root.program("init", include_bytes!("guest.sh"))?;
        root.program("job", job.as_bytes())?;
        root.copy("bin/busybox", &self.busybox())?;
        for command in COMMANDS {
            root.link(&format!("bin/{command}"), "busybox")?;
        }
        for (index, module) in MODULES.iter().enumerate() {
            let name = module.rsplit('/').next().unwrap_or(module);
            root.copy(
                &format!("modules/{index:02}-{name}.ko"),
                &modules.join(format!("{module}.ko")),
            )?;
        }
        for (name, file) in programs {
            root.copy(&format!("bin/{name}"), file)?;
        }
        root.finish()?;
        Ok(())
    }
}

/// A disk image with a folder's files; `spare` is the room left, in bytes.
pub fn write_disk(image: &Path, from: &Path, spare: u64) -> Result<()> {
    // The file system's own: its journal, and tables that grow with the disk.
    let mut bytes = spare + (8 << 20);
    for entry in std::fs::read_dir(from)? {
        let length = entry?.metadata()?.len();
        bytes += length + length / 16;
    }
    let _ = std::fs::remove_file(image);
    File::create(image)?.set_len(bytes.next_multiple_of(1 << 20))?;
    Run::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-d"])
        .arg(from)
        .arg(image)
        .output()
        .context("a disk for the emulated board needs mkfs.ext4 (Debian: e2fsprogs)")?;
    Ok(())
}

/// The only entry of a folder whose name starts so.
fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    std::fs::read_dir(folder)
        .ok()
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().unwrap_or_default().to_string_lossy().starts_with(prefix))
        .with_context(|| {
            format!("{} holds no {prefix}*; remove it and run this again", folder.display())
        })
}
