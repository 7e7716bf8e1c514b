//! What a picture cost.

use std::time::{Duration, Instant};

use super::request::Stage;

/// Seconds by stage.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageSeconds {
    /// Planning and loading, where the size or guidance was another one before.
    pub prepare: f64,
    /// Prompt to text states; near 0 where they were kept.
    pub text_encoder: f64,
    /// All denoising steps.
    pub denoise: f64,
    /// Latent to image.
    pub decode: f64,
    /// Image to better image.
    pub refine: f64,
    /// Image to larger image.
    pub enlarge: f64,
    /// From the request to the pixels.
    pub total: f64,
}

/// What a picture cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CostReport {
    /// Token ids of the prompt with its style, the special ones among them, that were used.
    pub tokens: u32,
    /// Denoising steps.
    pub steps: u32,
    /// Runs of the denoiser counted by sample: twice the steps with guidance, fewer with a step cache.
    pub denoiser_samples: u32,
    /// Wall-clock seconds.
    pub seconds: StageSeconds,
    /// Processor seconds of all threads of the process, from the request to the pixels; `None` where the system
    /// does not tell.
    pub cpu_seconds: Option<f64>,
    /// Threads that computed.
    pub threads: u32,
    /// Size of the arena.
    pub arena_bytes: u64,
    /// What the pipeline holds outside the arena: text states, latents, image.
    pub buffer_bytes: u64,
    /// The budget that was given.
    pub budget_bytes: Option<u64>,
    /// The most memory that the process has had resident so far; `None` where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
}

/// Takes the time of stages without allocating.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    lap: Instant,
    cpu_start: Option<Duration>,
    seconds: StageSeconds,
}

impl Clock {
    pub fn start() -> Self {
        let start = Instant::now();
        Clock { start, lap: start, cpu_start: cpu_time(), seconds: StageSeconds::default() }
    }

    /// Books the time since the last lap as preparation.
    pub fn lap_prepare(&mut self) {
        self.seconds.prepare += self.lap();
    }

    /// Books the time since the last lap on a stage.
    pub fn lap_stage(&mut self, stage: Stage) {
        let seconds = self.lap();
        *match stage {
            Stage::TextEncoder => &mut self.seconds.text_encoder,
            Stage::Denoise => &mut self.seconds.denoise,
            Stage::Decode => &mut self.seconds.decode,
            Stage::Refine => &mut self.seconds.refine,
            Stage::Enlarge => &mut self.seconds.enlarge,
        } += seconds;
    }

    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let seconds = now.duration_since(self.lap).as_secs_f64();
        self.lap = now;
        seconds
    }

    /// Seconds by stage and processor seconds so far.
    pub fn stop(&self) -> (StageSeconds, Option<f64>) {
        let total = self.start.elapsed().as_secs_f64();
        let cpu = cpu_time().zip(self.cpu_start).map(|(now, then)| (now - then).as_secs_f64());
        (StageSeconds { total, ..self.seconds }, cpu)
    }
}

/// Processor time of all threads of the process so far; `None` where the system does not tell.
#[cfg(unix)]
pub fn cpu_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?))
}

/// Processor time of all threads of the process so far; `None` where the system does not tell.
#[cfg(not(unix))]
pub fn cpu_time() -> Option<Duration> {
    None
}

/// The process's largest resident set so far, from `/proc/self/status`; `None` where the system does not tell.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_loop_costs_time_and_some_memory_is_resident() {
        let mut clock = Clock::start();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        clock.lap_stage(Stage::Decode);
        let (seconds, cpu) = clock.stop();
        assert!(seconds.decode >= 0.02 && seconds.total >= seconds.decode);
        if cfg!(target_os = "linux") {
            assert!(cpu.unwrap() > 0.0);
            assert!(peak_rss_bytes().unwrap() > 1 << 20);
        }
    }
}
