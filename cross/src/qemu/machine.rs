//! One emulated board, as QEMU's arguments.

use super::watch::Watch;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the board is made of.
pub struct Parts<'a> {
    /// QEMU's machine.
    pub machine: &'a str,
    /// QEMU's processor.
    pub cpu: &'a str,
    /// Memory, bytes.
    pub ram_bytes: u64,
    /// Kernel image.
    pub kernel: &'a Path,
    /// Root file system in memory.
    pub root: &'a Path,
    /// Disk images: the first is read only.
    pub disks: &'a [PathBuf],
}

/// Switches the board on; its console is what is watched.
pub fn start(parts: &Parts) -> Result<Watch> {
    let mut command = Command::new("qemu-system-aarch64");
    command
        .args(["-M", parts.machine, "-cpu", parts.cpu, "-smp", "2", "-nodefaults"])
        .args(["-display", "none", "-no-reboot", "-serial", "stdio"])
        .args(["-m", &format!("{}M", parts.ram_bytes >> 20)])
        .arg("-kernel")
        .arg(parts.kernel)
        .arg("-initrd")
        .arg(parts.root)
        .args(["-append", "console=ttyAMA0 quiet panic=-1"])
        .args(["-netdev", "user,id=net", "-device", "virtio-net-pci,romfile=,netdev=net"]);
    for (index, disk) in parts.disks.iter().enumerate() {
        let access = if index == 0 { ",readonly=on" } else { "" };
        let drive = format!("file={},format=raw,if=none,id=disk{index}{access}", disk.display());
        let device = format!("virtio-blk-pci,drive=disk{index},serial=disk{index}");
        command.args(["-drive", &drive, "-device", &device]);
    }
    Watch::start(command, "the emulated board", "install qemu-system-arm (Debian's name of it)")
}
