//! What a profile holds. Unknown keys are refused.

use crate::size;
use serde::{Deserialize, Serialize};

/// One board.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// Name on command lines; the file's name without `.toml`.
    pub name: String,
    /// Name as the maker writes it.
    pub title: String,
    /// Other names that find it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// How `/proc/device-tree/model` begins on it; empty where it has none.
    #[serde(default)]
    pub models: Vec<String>,
    /// Rust target of the binary that it gets.
    pub triple: String,
    /// Memory of the smallest version sold, bytes.
    #[serde(rename(deserialize = "ram"), deserialize_with = "size::bytes")]
    pub ram_bytes: u64,
    /// Kinds of core, the fastest first.
    pub cpu: Vec<Cpu>,
    /// Main memory.
    pub memory: Memory,
    /// What is used where the operator says nothing.
    pub defaults: Defaults,
    /// Where packs usually lie.
    pub storage: Storage,
    /// NPUs and GPUs that may be used.
    #[serde(default)]
    pub accelerators: Vec<Accelerator>,
    /// Files that tell temperature and power.
    pub sensors: Sensors,
    /// How it is emulated.
    pub qemu: Qemu,
    /// Where the figures are from.
    pub sources: Vec<Source>,
}

/// One kind of core.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// Arm's or the maker's name of it, lower case.
    pub core: String,
    /// How many.
    pub count: u32,
    /// Highest clock, MHz.
    pub mhz: u32,
    /// Multiply-accumulates of int8 a cycle at best, from the instructions it has.
    pub int8_macs_per_cycle: u32,
    /// Share of that peak which whole pictures are taken to reach: more than 0, at most 1.
    pub int8_share: f32,
    /// Features that kernels use, as `/proc/cpuinfo` names them.
    pub features: Vec<String>,
}

/// Main memory.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// What one core copies a second, 10^6 bytes.
    pub copy_mb_per_s: u32,
}

/// What is used where the operator says nothing.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Bytes that the whole process may take.
    #[serde(rename(deserialize = "budget"), deserialize_with = "size::bytes")]
    pub budget_bytes: u64,
    /// Threads that draw: the fast cores.
    pub threads: u32,
}

/// Where packs usually lie.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// Kind.
    pub class: StorageClass,
    /// What it reads a second in one run, 10^6 bytes.
    pub read_mb_per_s: u32,
}

/// Kinds of storage.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum StorageClass {
    /// SD card.
    Sd,
    /// Soldered flash.
    Emmc,
    /// Flash on PCIe.
    Nvme,
    /// A disk of any other kind.
    Disk,
}

/// An NPU or GPU.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Accelerator {
    /// Name on command lines.
    pub name: String,
    /// What it is.
    pub title: String,
    /// Device files, one of which exists where it can be used.
    pub nodes: Vec<String>,
    /// Libraries that drive it, the preferred first.
    pub libraries: Vec<String>,
    /// Int8 operations a second that the maker states, 10^12, two per multiply-accumulate.
    pub int8_tops: f32,
}

/// Files that tell temperature and power. `*` stands for any name.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Sensors {
    /// Temperature, thousandths of a degree Celsius.
    pub thermal: Vec<String>,
    /// Power, current, voltage or the alarm for too little of it; units are the driver's.
    pub power: Vec<String>,
}

/// How the board is emulated.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Qemu {
    /// Processor of the user-mode emulator: one that has what the board's has, and no more of what kernels use.
    pub user_cpu: String,
    /// Machine of the system emulator.
    pub machine: String,
    /// Processor of the system emulator.
    pub cpu: String,
}

/// Where figures are from.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Keys of this file that it speaks for.
    pub of: Vec<String>,
    /// Document, measurement, or how it was derived.
    pub from: String,
}

impl Board {
    /// Cores of all kinds.
    pub fn cores(&self) -> u32 {
        self.cpu.iter().map(|cpu| cpu.count).sum()
    }

    /// Int8 multiply-accumulates a second at best with the given number of threads, on the fastest cores first.
    pub fn peak_int8_macs_per_s(&self, threads: u32) -> f64 {
        self.sum_over_cores(threads, |_| 1.0)
    }

    /// Int8 multiply-accumulates a second that whole pictures are taken to reach with the given number of threads: the
    /// peak of each core times its `int8_share`.
    pub fn int8_macs_per_s(&self, threads: u32) -> f64 {
        self.sum_over_cores(threads, |cpu| f64::from(cpu.int8_share))
    }

    fn sum_over_cores(&self, threads: u32, share: impl Fn(&Cpu) -> f64) -> f64 {
        let mut left = threads;
        let mut sum = 0.0;
        for cpu in &self.cpu {
            let used = left.min(cpu.count);
            left -= used;
            let peak = f64::from(cpu.mhz) * 1e6 * f64::from(cpu.int8_macs_per_cycle);
            sum += f64::from(used) * peak * share(cpu);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn peak_takes_the_fast_cores_first() {
        let board = crate::find("rock-5b").unwrap();
        let fast = &board.cpu[0];
        let one = f64::from(fast.mhz) * 1e6 * f64::from(fast.int8_macs_per_cycle);
        assert_eq!(board.peak_int8_macs_per_s(1), one);
        assert_eq!(board.peak_int8_macs_per_s(4), 4.0 * one);
        assert!(board.peak_int8_macs_per_s(8) < 8.0 * one);
        assert_eq!(board.peak_int8_macs_per_s(8), board.peak_int8_macs_per_s(99));
        assert_eq!(board.cores(), 8);
        assert_eq!(board.int8_macs_per_s(4), 4.0 * one * f64::from(fast.int8_share));
    }
}
