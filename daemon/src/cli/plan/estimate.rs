//! What a picture takes on a board that is not here: an estimate from the profile's figures, never a measurement.
//!
//! Seconds of computing are multiply-adds through the share of the board's int8 peak that its profile states; seconds of
//! storage are the bytes that the plan reads through the profile's speed. They are added, as if nothing overlapped.

use plantain::engine::{Holding, MemoryReport};
use plantain::pipeline::PipelineSpec;
use plantain::plan::PlanReport;
use plantain::units::Bytes;
use plantain_boards::Board;
use serde::Serialize;

/// Linux, drivers and a GPU's share take up to a quarter of a small board's memory.
const RAM_QUARTERS: u64 = 3;

/// The estimate; its JSON is the `estimate` of `plantain plan --board NAME --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Name of the board.
    pub board: String,
    /// The maker's name of it.
    pub title: String,
    /// Always true: nothing here was measured on the board.
    pub estimated: bool,
    /// Whether all of it fits beside the system.
    pub fits: bool,
    /// Bytes that the process takes.
    pub needed_bytes: u64,
    /// Bytes of memory that the board has.
    pub ram_bytes: u64,
    /// Threads that compute.
    pub threads: u32,
    /// Multiply-adds a second that these threads are taken to reach.
    pub macs_per_s: f64,
    /// What the networks take.
    pub networks: Vec<NetworkEstimate>,
    /// Of all networks together.
    pub compute_s: f64,
    /// Bytes that each picture reads from storage, the first one apart.
    pub read_bytes: u64,
    /// The time that takes.
    pub read_s: f64,
    /// Bytes that the first picture reads.
    pub first_read_bytes: u64,
    /// The time that takes.
    pub first_read_s: f64,
    /// The storage's speed, 10^6 bytes a second.
    pub read_mb_per_s: u32,
    /// Seconds of a picture, the first one apart.
    pub picture_s: f64,
    /// Seconds of the first picture after a start.
    pub first_picture_s: f64,
}

/// One network's part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkEstimate {
    /// Its name.
    pub network: String,
    /// Runs a picture.
    pub runs: u32,
    /// Multiply-adds of all runs.
    pub macs: u64,
    /// Seconds of all runs.
    pub seconds: f64,
}

impl Estimate {
    /// Estimates a picture with the pack's default steps and guidance, or one run of each network without a pipeline.
    pub fn new(
        board: &Board,
        reports: &[PlanReport],
        memory: &MemoryReport,
        spec: Option<&PipelineSpec>,
    ) -> Self {
        let threads = reports.first().map_or(1, |report| report.threads as u32);
        let macs_per_s = board.int8_macs_per_s(threads);
        let networks: Vec<NetworkEstimate> = reports
            .iter()
            .map(|report| {
                let runs = runs(report, spec);
                // With the same prompt, runs after the first find what it kept.
                let later = report.later_macs() * u64::from(runs.saturating_sub(1));
                let macs = if runs > 0 { report.macs + later } else { 0 };
                NetworkEstimate {
                    network: report.network.clone(),
                    runs,
                    macs,
                    seconds: macs as f64 / macs_per_s,
                }
            })
            .collect();
        let (mut read_bytes, mut first_read_bytes) = (0, 0);
        for (held, network) in memory.networks.iter().zip(&networks) {
            let (first, each) = match held.holding {
                Holding::Resident => (held.read_bytes, 0),
                Holding::Kept => (held.read_bytes, held.read_bytes),
                Holding::Streamed => {
                    let later = held.later_read_bytes * u64::from(network.runs.saturating_sub(1));
                    (held.read_bytes + later, held.read_bytes + later)
                }
            };
            first_read_bytes += first;
            read_bytes += each;
        }
        let storage = f64::from(board.storage.read_mb_per_s) * 1e6;
        let compute_s: f64 = networks.iter().map(|network| network.seconds).sum();
        let (read_s, first_read_s) =
            (read_bytes as f64 / storage, first_read_bytes as f64 / storage);
        let needed_bytes = memory.total_bytes();
        Estimate {
            board: board.name.clone(),
            title: board.title.clone(),
            estimated: true,
            fits: needed_bytes <= board.ram_bytes / 4 * RAM_QUARTERS,
            needed_bytes,
            ram_bytes: board.ram_bytes,
            threads,
            macs_per_s,
            networks,
            compute_s,
            read_bytes,
            read_s,
            first_read_bytes,
            first_read_s,
            read_mb_per_s: board.storage.read_mb_per_s,
            picture_s: compute_s + read_s,
            first_picture_s: compute_s + first_read_s,
        }
    }

    /// As text, with the figures that it is made of.
    pub fn text(&self) -> String {
        let macs: u64 = self.networks.iter().map(|network| network.macs).sum();
        let fits = match self.fits {
            true => "fits",
            false => "does NOT fit: a quarter of the RAM is left to the system",
        };
        let runs: Vec<String> = self
            .networks
            .iter()
            .map(|network| {
                format!("{} x {} {}", network.runs, network.network, seconds(network.seconds))
            })
            .collect();
        format!(
            "{} ({}): {fits}; {} of {} RAM, the process as measured on this machine\n\
             ESTIMATE, not measured: {} a picture, {} the first after a start\n  \
             computing {}: {:.0} MMAC at {:.2} GMAC/s with {} threads ({})\n  \
             storage   {}: {} a picture at {} MB/s; {} for the first, {}\n",
            self.title,
            self.board,
            Bytes(self.needed_bytes),
            Bytes(self.ram_bytes),
            seconds(self.picture_s),
            seconds(self.first_picture_s),
            seconds(self.compute_s),
            macs as f64 / 1e6,
            self.macs_per_s / 1e9,
            self.threads,
            runs.join(", "),
            seconds(self.read_s),
            Bytes(self.read_bytes),
            self.read_mb_per_s,
            seconds(self.first_read_s),
            Bytes(self.first_read_bytes),
        )
    }
}

/// Runs of a network a picture. With guidance there are two samples; a plan for a batch draws both in one run.
fn runs(report: &PlanReport, spec: Option<&PipelineSpec>) -> u32 {
    let Some(spec) = spec else { return 1 };
    let samples = if spec.guidance_scale_default == 1.0 { 1 } else { 2 };
    match report.network.as_str() {
        "text_encoder" => samples,
        "denoiser" => spec.steps_default * (samples / report.binding[0].clamp(1, samples)),
        _ => 1,
    }
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.2} s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use plantain::engine::NetworkMemory;

    fn report(network: &str, macs: u64) -> PlanReport {
        PlanReport {
            network: network.into(),
            binding: [1, 8, 8],
            threads: 4,
            arena_bytes: 0,
            live_bytes_max: 0,
            strip_height: None,
            macs,
            steady_macs: 0,
            prologue_steps: 0,
            kept_bytes: 0,
            window_bytes: None,
            streamed_bytes: None,
            steps: Vec::new(),
        }
    }

    fn memory(holding: Holding, process_bytes: u64) -> MemoryReport {
        let network = NetworkMemory {
            network: "denoiser".into(),
            holding,
            arena_bytes: 0,
            kept_bytes: 0,
            held_bytes: 0,
            weight_bytes: 42_000_000,
            read_bytes: 42_000_000,
            later_read_bytes: 42_000_000,
        };
        MemoryReport { process_bytes, networks: vec![network], ..MemoryReport::default() }
    }

    #[test]
    fn the_model_can_be_checked_by_hand() {
        let board = plantain_boards::find("rpi-zero2w").unwrap();
        // Four cores at 1 GHz with 8 multiply-adds a cycle, a quarter of which is reached: 8 GMAC/s; 21 MB/s.
        let reports = [report("denoiser", 16_000_000_000)];
        let kept = Estimate::new(board, &reports, &memory(Holding::Resident, 32 << 20), None);
        assert!((kept.macs_per_s - 8e9).abs() < 1.0 && (kept.compute_s - 2.0).abs() < 1e-9);
        assert_eq!((kept.read_bytes, kept.first_read_bytes), (0, 42_000_000));
        assert!((kept.picture_s - 2.0).abs() < 1e-9 && (kept.first_picture_s - 4.0).abs() < 1e-9);
        assert!(kept.fits);
        let streamed = Estimate::new(board, &reports, &memory(Holding::Streamed, 32 << 20), None);
        assert!((streamed.picture_s - 4.0).abs() < 1e-9, "{streamed:?}");
        let text = kept.text();
        assert!(text.contains("ESTIMATE, not measured: 2.00 s a picture"), "{text}");
    }

    #[test]
    fn a_process_that_leaves_no_room_for_the_system_does_not_fit() {
        let board = plantain_boards::find("rpi-zero2w").unwrap();
        let reports = [report("denoiser", 1)];
        let at =
            |mib: u64| Estimate::new(board, &reports, &memory(Holding::Resident, mib << 20), None);
        assert!(at(384).fits && !at(385).fits);
        assert!(at(385).text().contains("does NOT fit"));
    }
}
