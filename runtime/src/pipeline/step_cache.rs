//! Leaving the denoiser out of some steps: an option, off by default, that gives another picture for less work.
//!
//! The denoiser runs at the first two steps, at every `every`-th and at the last. At the others its answer, guidance
//! included, is taken to lie on the line through the last two that were computed, drawn over the timestep that the denoiser is told. The
//! scheduler then steps as ever. Only two answers are kept, the size of a latent each.
//!
//! Source: the first-order case of forecasting from cached values in place of reusing them (Liu et al. 2025, arXiv 2503.06923), applied to
//! the denoiser's answer as a whole, as Guan et al. 2025 (arXiv 2508.02240) apply it to the last block.

/// The answers that were computed last.
#[derive(Debug)]
pub struct StepCache {
    every: usize,
    /// The last one and the one before, each with its timestep.
    last: [(f32, Vec<f32>); 2],
    computed: usize,
}

impl StepCache {
    /// Smallest and largest distance between steps that compute.
    pub const EVERY: [u32; 2] = [2, 16];

    /// Room for answers of this many values.
    pub fn new(every: u32, values: usize) -> Self {
        let room = || (0.0, vec![0.0; values]);
        StepCache { every: every.max(1) as usize, last: [room(), room()], computed: 0 }
    }

    /// Bytes of two answers.
    pub fn bytes_of(values: usize) -> usize {
        2 * size_of::<f32>() * values
    }

    /// Before the first step of a picture.
    pub fn reset(&mut self) {
        self.computed = 0;
    }

    /// Whether the denoiser runs at a step.
    pub fn computes(&self, step: usize, steps: usize) -> bool {
        step < 2 || step.is_multiple_of(self.every) || step + 1 == steps
    }

    /// Steps of so many at which it runs.
    pub fn computed_of(&self, steps: usize) -> usize {
        (0..steps).filter(|&step| self.computes(step, steps)).count()
    }

    /// Keeps an answer.
    pub fn keep(&mut self, timestep: f32, answer: &[f32]) {
        self.last.swap(0, 1);
        let (at, values) = &mut self.last[0];
        *at = timestep;
        values.copy_from_slice(answer);
        self.computed += 1;
    }

    /// The answer to expect at a timestep; to be asked after two were kept.
    pub fn expect(&self, timestep: f32, answer: &mut [f32]) {
        let [(t1, last), (t0, before)] = &self.last;
        let span = t1 - t0;
        let ahead = if self.computed > 1 && span != 0.0 { (timestep - t1) / span } else { 0.0 };
        for ((answer, &last), &before) in answer.iter_mut().zip(last).zip(before) {
            *answer = ahead.mul_add(last - before, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_every_nth_and_the_last_step_compute() {
        let cache = StepCache::new(3, 1);
        let computed = |steps| (0..steps).filter(|&s| cache.computes(s, steps)).collect::<Vec<_>>();
        assert_eq!(computed(10), [0, 1, 3, 6, 9]);
        assert_eq!(computed(12), [0, 1, 3, 6, 9, 11]);
        assert_eq!((computed(1), computed(2)), (vec![0], vec![0, 1]));
        assert_eq!(cache.computed_of(12), 6);
    }

    #[test]
    fn a_line_is_followed_exactly_and_one_answer_is_repeated() {
        let mut cache = StepCache::new(2, 2);
        cache.keep(900.0, &[1.0, -3.0]);
        let mut answer = [0.0; 2];
        cache.expect(700.0, &mut answer);
        assert_eq!(answer, [1.0, -3.0]);
        cache.keep(700.0, &[2.0, -5.0]);
        cache.expect(600.0, &mut answer);
        assert_eq!(answer, [2.5, -6.0]);
        cache.reset();
        cache.keep(900.0, &[7.0, 7.0]);
        cache.expect(100.0, &mut answer);
        assert_eq!(answer, [7.0, 7.0]);
    }
}
