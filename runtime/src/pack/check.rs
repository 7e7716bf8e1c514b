//! What the parts of a pack say about each other.
//!
//! Enters: graphs that keep the rules, tensors that lie in the file, the pipeline. Leaves: nothing, or the
//! first name that leads nowhere or size that no network runs at.

use super::PackFault;
use super::tensor::TensorType;
use super::verify::{Contents, short};
use crate::graph::{Binding, Graph, validate_bound};
use crate::pipeline::PipelineSpec;

/// Golden pairs name networks, inputs, outputs and tensors that are there.
pub(super) fn golden(contents: &Contents) -> Result<(), PackFault> {
    for golden in &contents.golden {
        let fault = |name: &str, what| PackFault::Golden {
            network: short(&golden.network),
            name: short(name),
            what,
        };
        let graph =
            contents.graph(&golden.network).ok_or_else(|| fault(&golden.network, "network"))?;
        for name in golden.inputs.keys() {
            graph.input(name).ok_or_else(|| fault(name, "input of it"))?;
        }
        for name in golden.outputs.keys() {
            graph.output(name).ok_or_else(|| fault(name, "output of it"))?;
        }
        for name in golden.inputs.values().chain(golden.outputs.values()) {
            contents.find(name).ok_or_else(|| fault(name, "tensor"))?;
        }
    }
    Ok(())
}

fn missing(name: &str, what: &'static str) -> PackFault {
    PackFault::Pipeline { name: short(name), what }
}

fn network<'c>(contents: &'c Contents, name: &str) -> Result<&'c Graph, PackFault> {
    contents.graph(name).ok_or_else(|| missing(name, "a network"))
}

/// Every name that the pipeline uses stands in the pack.
pub(super) fn names(contents: &Contents, pipeline: &PipelineSpec) -> Result<(), PackFault> {
    let wiring = &pipeline.wiring;
    let encoder = network(contents, "text_encoder")?;
    let denoiser = network(contents, "denoiser")?;
    let decoder = network(contents, "decoder")?;
    let inputs = [
        (encoder, Some(&wiring.text_ids)),
        (encoder, wiring.text_mask.as_ref()),
        (denoiser, Some(&wiring.denoiser_sample)),
        (denoiser, Some(&wiring.denoiser_timestep)),
        (denoiser, Some(&wiring.denoiser_states)),
        (denoiser, wiring.denoiser_mask.as_ref()),
        (decoder, Some(&wiring.decoder_latent)),
    ];
    let refiner = match &wiring.refiner_image {
        Some(name) => Some((network(contents, "refiner")?, name)),
        None => None,
    };
    let enlarger = match &wiring.enlarger_image {
        Some(name) => Some((network(contents, "enlarger")?, name)),
        None => None,
    };
    let inputs = inputs.into_iter().filter_map(|(graph, name)| Some((graph, name?)));
    for (graph, name) in inputs.chain(refiner).chain(enlarger) {
        graph.input(name).ok_or_else(|| missing(name, "an input of its network"))?;
    }
    encoder
        .output(&wiring.text_states)
        .ok_or_else(|| missing(&wiring.text_states, "an output of text_encoder"))?;
    for name in std::iter::once(&pipeline.tokenizer.vocabulary).chain(&pipeline.tokenizer.merges) {
        contents
            .find(name)
            .filter(|&index| contents.tensors[index].dtype == TensorType::U8)
            .ok_or_else(|| missing(name, "a U8 tensor of the tokenizer"))?;
    }
    Ok(())
}

/// Every network runs at the smallest, the default and the largest size.
pub(super) fn sizes(contents: &Contents, pipeline: &PipelineSpec) -> Result<(), PackFault> {
    let size = &pipeline.size;
    let fault = |what, actual: u32, allowed: String| {
        Err(PackFault::PipelineSize { what, actual: actual.to_string(), allowed })
    };
    let cell = size.cell_pixels;
    if cell == 0 {
        return fault("cell_pixels", cell, "1 or more".to_owned());
    }
    if size.multiple == 0 || !size.multiple.is_multiple_of(cell) {
        return fault("multiple", size.multiple, format!("a multiple of its cell_pixels, {cell}"));
    }
    for axis in 0..2 {
        let (min, max) = (size.min[axis], size.max[axis]);
        for (what, pixels) in
            [("smallest size", min), ("default size", size.default[axis]), ("largest size", max)]
        {
            if pixels == 0 || !pixels.is_multiple_of(size.multiple) {
                return fault(what, pixels, format!("a multiple of {}", size.multiple));
            }
            if !(min..=max).contains(&pixels) {
                return fault(what, pixels, format!("from {min} to {max}"));
            }
        }
    }
    for [width, height] in [size.min, size.default, size.max] {
        let cells = |batch| Binding { batch, height: height / cell, width: width / cell };
        validate_bound(network(contents, "text_encoder")?, cells(1))?;
        validate_bound(network(contents, "denoiser")?, cells(1))?;
        let decoder = network(contents, "decoder")?;
        let shapes = validate_bound(decoder, cells(1))?;
        if pipeline.wiring.refiner_image.is_some()
            && let Some([_, rows, columns, _]) =
                decoder.outputs.first().map(|id| &*shapes[id.index()])
        {
            // Dimensions of values stay below 2^28.
            let (height, width) = (*rows as u32, *columns as u32);
            validate_bound(network(contents, "refiner")?, Binding { batch: 1, height, width })?;
        }
        if pipeline.wiring.enlarger_image.is_some() {
            validate_bound(network(contents, "enlarger")?, Binding { batch: 1, height, width })?;
        }
    }
    Ok(())
}
