//! Seeded noise: the same bytes for the same seed on every CPU.
//!
//! Enters: a seed, a stream, a range. Leaves: uniform words, normal values. Never: state, time, the
//! operating system's randomness, a float operation that IEEE 754 does not pin.
//!
//! Words come from Philox4x32-10 (Salmon et al. 2011), which turns a counter and a key into four words:
//! value `i` of a stream depends on nothing but the seed, the stream and `i`. The counter is `[i / 4 low,
//! i / 4 high, stream, 0]`, the key `[seed low, seed high]`. Two words make two normal values by Box and
//! Muller's transform in f64, with our own logarithm and cosine built from add, multiply, divide, square root
//! and fused multiply-add alone; each is rounded to f32 once.

use std::f64::consts::{LN_2, SQRT_2, TAU};

/// Streams of one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The latent that denoising starts from.
    Latent,
    /// What a scheduler adds after step `n`.
    Step(u32),
}

impl Stream {
    const fn word(self) -> u32 {
        match self {
            Stream::Latent => 0,
            Stream::Step(step) => step.wrapping_add(1),
        }
    }
}

/// Fills `out` with normal values, mean 0, variance 1: element `i` is value `i` of the stream.
///
/// The largest possible magnitude is 6.77.
pub fn fill_normal(seed: u64, stream: Stream, out: &mut [f32]) {
    for (block, values) in out.chunks_mut(4).enumerate() {
        let normal = normal_block(seed, stream, block as u64);
        values.copy_from_slice(&normal[..values.len()]);
    }
}

/// Values `4 * block .. 4 * block + 4` of a stream.
fn normal_block(seed: u64, stream: Stream, block: u64) -> [f32; 4] {
    let counter = [block as u32, (block >> 32) as u32, stream.word(), 0];
    let words = philox4x32_10(counter, [seed as u32, (seed >> 32) as u32]);
    let [a, b] = normal_pair(words[0], words[1]);
    let [c, d] = normal_pair(words[2], words[3]);
    [a, b, c, d]
}

/// Two words to two normal values: the first word is the radius, the second the angle.
fn normal_pair(radius: u32, angle: u32) -> [f32; 2] {
    let uniform = |word: u32| (f64::from(word) + 0.5) / 4_294_967_296.0;
    let radius = (-2.0 * ln(uniform(radius))).sqrt();
    let turn = uniform(angle);
    [(radius * cos_turn(turn)) as f32, (radius * cos_turn(turn - 0.25)) as f32]
}

/// Philox4x32 with ten rounds.
///
/// # Source   Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011)
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let (mut c, mut k) = (counter, key);
    for _ in 0..10 {
        let low = u64::from(MULTIPLIER[0]) * u64::from(c[0]);
        let high = u64::from(MULTIPLIER[1]) * u64::from(c[2]);
        c = [
            (high >> 32) as u32 ^ c[1] ^ k[0],
            high as u32,
            (low >> 32) as u32 ^ c[3] ^ k[1],
            low as u32,
        ];
        k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
    }
    c
}

/// Natural logarithm of a positive, normal number.
///
/// `x = m * 2^e` with m between sqrt(1/2) and sqrt(2); `ln m = 2 artanh(s)`, `s = (m - 1) / (m + 1)`.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i64 - 1023;
    let mut mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if mantissa > SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    // s is at most 0.1716, so that the term after these is below 2e-17.
    let series =
        (1..=10u32).rev().fold(0.0, |sum: f64, n| (sum + 1.0 / f64::from(2 * n + 1)) * square);
    (exponent as f64).mul_add(LN_2, (2.0 * s).mul_add(series, 2.0 * s))
}

/// Cosine of `turn` turns, for turns between -1/4 and 1.
fn cos_turn(turn: f64) -> f64 {
    // cos(x) = -cos(x - pi), cos(x) = sin(pi/2 - x): fold into an eighth of a turn, exactly.
    let folded = if turn.abs() > 0.5 { 1.0 - turn.abs() } else { turn.abs() };
    let (sign, quarter) = if folded > 0.25 { (-1.0, 0.5 - folded) } else { (1.0, folded) };
    let value = if quarter > 0.125 {
        sine(TAU * (0.25 - quarter))
    } else {
        let half = sine(TAU * quarter / 2.0);
        (-2.0 * half).mul_add(half, 1.0)
    };
    sign * value
}

/// Sine of an angle between 0 and pi / 4, by Taylor's series.
fn sine(x: f64) -> f64 {
    let square = x * x;
    // The term after these is below 2e-17.
    let series = (1..=8u32)
        .rev()
        .fold(0.0, |sum: f64, n| -(sum + 1.0) * square / f64::from(2 * n * (2 * n + 1)));
    x.mul_add(series, x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_words() {
        // kat_vectors of Random123 1.14.
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }

    #[test]
    fn logarithm_and_cosine_are_near_the_platform_s() {
        for index in 0..100_000u32 {
            let x = (f64::from(index) + 0.5) / 100_000.0;
            assert!((ln(x) - x.ln()).abs() <= 4e-16 * x.ln().abs().max(1.0), "ln {x}");
            assert!((cos_turn(x) - (TAU * x).cos()).abs() < 1e-15, "cos {x}");
            assert!((cos_turn(x - 0.25) - (TAU * x).sin()).abs() < 1e-15, "sin {x}");
        }
        assert_eq!(ln(1.0), 0.0);
        assert!(ln(0.5 / 4_294_967_296.0).is_finite());
    }

    #[test]
    fn values_depend_on_seed_stream_and_place_alone() {
        let mut long = [0.0; 1001];
        fill_normal(7, Stream::Latent, &mut long);
        let mut short = [0.0; 6];
        fill_normal(7, Stream::Latent, &mut short);
        assert_eq!(short, long[..6]);
        let mut other = [0.0; 6];
        fill_normal(7 | 1 << 40, Stream::Latent, &mut other);
        assert_ne!(short, other);
        fill_normal(7, Stream::Step(0), &mut other);
        assert_ne!(short, other);
    }

    #[test]
    fn values_are_golden() {
        let mut values = [0.0; 8];
        fill_normal(42, Stream::Latent, &mut values);
        assert_eq!(values.map(f32::to_bits), GOLDEN, "{values:?}");
    }

    /// Bits of the first values of seed 42; they must never change.
    const GOLDEN: [u32; 8] = [
        3_212_336_732,
        1_044_819_176,
        3_214_813_394,
        1_073_103_675,
        3_180_716_080,
        1_041_136_143,
        3_213_731_635,
        1_051_149_053,
    ];

    #[test]
    fn values_are_normal() {
        let mut values = vec![0.0; 1 << 20];
        fill_normal(1, Stream::Latent, &mut values);
        let count = values.len() as f64;
        let moment =
            |power: i32| values.iter().map(|&v| f64::from(v).powi(power)).sum::<f64>() / count;
        assert!(moment(1).abs() < 0.003, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.005, "{}", moment(2));
        assert!(moment(3).abs() < 0.02, "{}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.03, "{}", moment(4));
        assert!(values.iter().all(|v| v.abs() < 6.77));
    }
}
