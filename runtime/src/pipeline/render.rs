//! From the latent to bytes: decoder, refiner, enlarger, rounding.

use super::draw::Meter;
use super::error::PipelineError;
use super::networks::Loaded;
use super::request::Stage;
use super::spec::{PipelineSpec, Prediction};
use crate::graph::Unary;
use crate::kernel::Kernels;

/// What is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The latent: finished after the last step, with noise before.
    Latent,
    /// The denoiser's answer, where that is the picture it expects.
    Answer,
}

impl Source {
    /// The nearest to the finished picture that there is after a step.
    pub fn preview(prediction: Prediction) -> Self {
        if prediction == Prediction::Sample { Source::Answer } else { Source::Latent }
    }
}

/// Decodes the latent, refines it where the pack can, enlarges it where the size asks for it, and writes the pixels;
/// answers with the last stage.
pub fn render(
    loaded: &mut Loaded,
    spec: &PipelineSpec,
    source: Source,
    pixels: &mut [u8],
    meter: &mut Meter<'_>,
) -> Result<Stage, PipelineError> {
    let Loaded { engine, decoder, refiner, enlarger, buffers, decoded_len, refined_len, .. } =
        loaded;
    let (size, wiring) = (&spec.size, &spec.wiring);
    let latent_len = buffers.latent.len();
    // The denoiser's input is written anew before each step; until then its place is free.
    let scaled = &mut buffers.sample[..latent_len];
    scaled.copy_from_slice(match source {
        Source::Latent => &buffers.latent,
        Source::Answer => &buffers.output[..latent_len],
    });
    scale_latent(scaled, size.latent_scale, size.latent_shift);
    engine.set_input(*decoder, &wiring.decoder_latent, scaled)?;
    meter.run(engine, *decoder, Stage::Decode)?;
    engine.read_output(*decoder, 0, &mut buffers.image[..*decoded_len])?;
    if let (Some(refiner), Some(name)) = (*refiner, &wiring.refiner_image) {
        engine.set_input(refiner, name, &buffers.image[..*decoded_len])?;
        meter.run(engine, refiner, Stage::Refine)?;
        engine.read_output(refiner, 0, &mut buffers.image[..*refined_len])?;
    }
    if let (Some(enlarger), Some(name)) = (*enlarger, &wiring.enlarger_image) {
        engine.set_input(enlarger, name, &buffers.image[..*refined_len])?;
        meter.run(engine, enlarger, Stage::Enlarge)?;
        engine.read_output(enlarger, 0, &mut buffers.image[..pixels.len()])?;
    }
    to_bytes(engine.kernels(), &mut buffers.image[..pixels.len()], size.range, pixels);
    let last = match (&refiner, &enlarger) {
        (_, Some(_)) => Stage::Enlarge,
        (Some(_), None) => Stage::Refine,
        (None, None) => Stage::Decode,
    };
    meter.lap(last);
    Ok(last)
}

/// `latent / scale + shift`, what decoders of diffusers' layout take.
fn scale_latent(latent: &mut [f32], scale: f32, shift: f32) {
    for value in latent {
        *value = *value / scale + shift;
    }
}

/// Values to bytes: `range` becomes 0 to 255, what lies outside is cut, halves go to the even neighbour, NaN to 0. The
/// values are used up.
#[expect(clippy::manual_clamp, reason = "a clamped NaN would stay one")]
fn to_bytes(kernels: &Kernels, values: &mut [f32], [black, white]: [f32; 2], bytes: &mut [u8]) {
    /// Adding this rounds to a whole number, nearest even, and leaves it in the last bits: 1.5 * 2^23.
    const ROUND: f32 = 12_582_912.0;
    let scale = 255.0 / (white - black);
    (kernels.unary)(Unary::Affine { scale, shift: -black * scale }, values);
    for (byte, value) in bytes.iter_mut().zip(values) {
        *byte = (value.max(0.0).min(255.0) + ROUND).to_bits() as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_bytes_with_cut_ends_and_even_halves() {
        let kernels = Kernels::chosen().unwrap();
        let mut values = [-1.0, 1.0, 0.0, -9.0, 9.0, f32::NAN, f32::INFINITY, 1.0 / 127.5 - 1.0];
        let mut bytes = [7; 8];
        to_bytes(kernels, &mut values, [-1.0, 1.0], &mut bytes);
        assert_eq!(bytes, [0, 255, 128, 0, 255, 0, 255, 1]);
        to_bytes(kernels, &mut [0.5, 1.5, 2.5], [0.0, 255.0], &mut bytes[..3]);
        assert_eq!(bytes[..3], [0, 2, 2]);
    }

    #[test]
    fn latents_are_divided_then_shifted() {
        let mut latent = [0.5, -1.0];
        scale_latent(&mut latent, 0.25, 1.0);
        assert_eq!(latent, [3.0, -3.0]);
    }
}
