//! The networks of a pack, loaded for one size and batch, with all buffers around them.

use std::sync::Arc;

use super::error::PipelineError;
use super::spec::{PipelineSpec, Wiring};
use super::step_cache::StepCache;
use super::text::TextStates;
use crate::engine::{Engine, EngineError, EngineOptions, NetworkIndex, PaddedTokens, SteadyInputs};
use crate::graph::{Binding, Graph, Op, ValueId, bind_shape};
use crate::image::Channels;
use crate::pack::Pack;
use crate::plan::{ignores_padding, macs};

/// What encoding a picture takes beside its pixels: windows, hash chains, code tables.
const ENCODER_BYTES: usize = 1 << 20;

/// What is planned for: width and height of the picture, samples of the denoiser, whether it runs more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub size: [u32; 2],
    pub batch: u32,
    pub many_steps: bool,
}

/// Networks in one arena, ready to run.
pub struct Loaded {
    pub shape: Shape,
    pub engine: Engine,
    pub text_encoder: NetworkIndex,
    pub denoiser: NetworkIndex,
    pub decoder: NetworkIndex,
    pub refiner: Option<NetworkIndex>,
    /// Only where the size needs it.
    pub enlarger: Option<NetworkIndex>,
    /// Runs of the denoiser in one step: 1 with all samples together, or one for each where the network takes one
    /// sample only.
    pub runs_per_step: usize,
    /// Which output of the text encoder the denoiser reads.
    pub text_output: usize,
    /// Values of one text's states.
    pub states_len: usize,
    /// Values of the decoder's image.
    pub decoded_len: usize,
    /// Values of the refiner's image, or the decoder's without one.
    pub refined_len: usize,
    /// Of the picture.
    pub channels: Channels,
    /// Ids from here on are refused.
    pub rows: u32,
    pub buffers: Buffers,
    pub step_cache: Option<StepCache>,
}

/// What passes between networks, f32.
pub struct Buffers {
    /// `[tokens]`
    pub text_mask: Vec<f32>,
    /// `[batch, tokens, channels]`
    pub states: Vec<f32>,
    /// `[batch, tokens]`
    pub mask: Vec<f32>,
    /// `[batch]`
    pub timestep: Vec<f32>,
    /// `[h, w, channels]`
    pub latent: Vec<f32>,
    /// `[h, w, channels]`
    pub noise: Vec<f32>,
    /// `[batch, h, w, channels]`
    pub sample: Vec<f32>,
    /// `[batch, h, w, channels]`
    pub output: Vec<f32>,
    /// The decoder's image, then the refiner's, then the enlarger's: `[height, width, channels]`
    pub image: Vec<f32>,
}

impl Buffers {
    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        let Buffers { text_mask, states, mask, timestep, latent, noise, sample, output, image } =
            self;
        [text_mask, states, mask, timestep, latent, noise, sample, output, image]
            .iter()
            .map(|buffer| size_of_val(buffer.as_slice()))
            .sum()
    }
}

impl Loaded {
    /// Checks that pipeline and networks fit together, plans and loads.
    pub fn new(
        pack: &Arc<Pack>,
        spec: &PipelineSpec,
        shape: Shape,
        step_cache: Option<u32>,
        options: &EngineOptions,
    ) -> Result<Self, PipelineError> {
        let (wiring, tokens) = (&spec.wiring, spec.tokenizer.tokens_max as usize);
        let cell = spec.size.cell_pixels.max(1);
        let (base, enlarged) = spec.size.base(shape.size).unwrap_or((shape.size, false));
        let [width, height] = base;
        let cells = Binding { batch: shape.batch, height: height / cell, width: width / cell };
        let latent_len =
            cells.height as usize * cells.width as usize * spec.size.latent_channels as usize;
        let batch = shape.batch as usize;

        let text = Network::new(pack, "text_encoder", Binding { batch: 1, height: 1, width: 1 })?;
        text.expects(&wiring.text_ids, tokens)?;
        wiring.text_mask.iter().try_for_each(|mask| text.expects(mask, tokens))?;
        text.reads_only(&[Some(&wiring.text_ids), wiring.text_mask.as_ref()])?;
        let (text_output, states_len) = text.output(&wiring.text_states)?;

        let mut denoiser = Network::new(pack, "denoiser", cells)?;
        let runs_per_step = if denoiser.takes_one(&wiring.denoiser_sample) { batch } else { 1 };
        let together = batch / runs_per_step;
        denoiser.binding.batch = together as u32;
        denoiser.expects(&wiring.denoiser_sample, together * latent_len)?;
        denoiser.expects(&wiring.denoiser_timestep, together)?;
        denoiser.expects(&wiring.denoiser_states, together * states_len)?;
        wiring
            .denoiser_mask
            .iter()
            .try_for_each(|mask| denoiser.expects(mask, together * tokens))?;
        denoiser.reads_only(&[
            Some(&wiring.denoiser_sample),
            Some(&wiring.denoiser_timestep),
            Some(&wiring.denoiser_states),
            wiring.denoiser_mask.as_ref(),
        ])?;
        denoiser.first_output(&[together, cells.height as usize, cells.width as usize])?;

        let decoder = Network::new(pack, "decoder", Binding { batch: 1, ..cells })?;
        decoder.expects(&wiring.decoder_latent, latent_len)?;
        decoder.reads_only(&[Some(&wiring.decoder_latent)])?;
        let decoded = decoder.first_output(&[1])?;
        let decoded_len: usize = decoded.iter().product();
        let mut networks = vec![
            (text.graph, text.binding),
            (denoiser.graph, denoiser.binding),
            (decoder.graph, decoder.binding),
        ];

        let picture = [1, height as usize, width as usize];
        let (last, refiner) = match &wiring.refiner_image {
            None => (decoder.first_output(&picture)?, None),
            Some(name) => {
                let side = |axis: usize| decoded.get(axis).map_or(0, |&side| side as u32);
                let binding = Binding { batch: 1, height: side(1), width: side(2) };
                let refiner = Network::new(pack, "refiner", binding)?;
                refiner.expects(name, decoded_len)?;
                refiner.reads_only(&[Some(name)])?;
                networks.push((refiner.graph, binding));
                (refiner.first_output(&picture)?, Some(NetworkIndex(3)))
            }
        };
        let refined_len = last.iter().product();
        let (last, enlarger) = match &wiring.enlarger_image {
            Some(name) if enlarged => {
                let enlarger = Network::new(pack, "enlarger", Binding { batch: 1, height, width })?;
                enlarger.expects(name, refined_len)?;
                enlarger.reads_only(&[Some(name)])?;
                networks.push((enlarger.graph, enlarger.binding));
                let [width, height] = shape.size.map(|side| side as usize);
                let place = NetworkIndex(networks.len() - 1);
                (enlarger.first_output(&[1, height, width])?, Some(place))
            }
            _ => (last, None),
        };
        let channels = match last.last() {
            Some(3) => Channels::Rgb,
            Some(4) => Channels::Rgba,
            other => {
                let graph = networks.last().map_or("decoder", |(graph, _)| &graph.name);
                let problem = format!("it has {} channels instead of 3 or 4", other.unwrap_or(&0));
                return Err(wiring_error(graph, "output 0", problem));
            }
        };
        let image_len = decoded_len.max(refined_len).max(last.iter().product());
        let buffers = Buffers {
            text_mask: vec![0.0; tokens],
            states: vec![0.0; batch * states_len],
            mask: vec![0.0; batch * tokens],
            timestep: vec![0.0; batch],
            latent: vec![0.0; latent_len],
            noise: vec![0.0; latent_len],
            sample: vec![0.0; batch * latent_len],
            output: vec![0.0; batch * latent_len],
            image: vec![0.0; image_len],
        };
        let rows = id_rows(text.graph, &wiring.text_ids);
        // Buffers, kept texts, pixels, the encoded picture and its encoder's tables are touched after load.
        let texts_bytes = TextStates::bytes_of(tokens, states_len);
        let cache_bytes = step_cache.map_or(0, |_| StepCache::bytes_of(latent_len));
        let held_bytes = buffers.bytes() + texts_bytes + cache_bytes;
        let reserve_bytes = (held_bytes + 3 * image_len + ENCODER_BYTES) as u64;
        // Where each sample is a run of its own, its prompt changes from run to run and nothing can be kept.
        let steady = (shape.many_steps && runs_per_step == 1).then(|| SteadyInputs {
            network: "denoiser".to_owned(),
            inputs: [&wiring.denoiser_states]
                .into_iter()
                .chain(&wiring.denoiser_mask)
                .cloned()
                .collect(),
        });
        let padding = padding(wiring, &text, &denoiser)?;
        let options = EngineOptions { reserve_bytes, steady, padding, ..options.clone() };
        let engine = Engine::load(pack.clone(), &networks, &options)?;
        Ok(Loaded {
            shape,
            engine,
            text_encoder: NetworkIndex(0),
            denoiser: NetworkIndex(1),
            decoder: NetworkIndex(2),
            refiner,
            enlarger,
            runs_per_step,
            text_output,
            states_len,
            decoded_len,
            refined_len,
            channels,
            rows,
            buffers,
            step_cache: step_cache.map(|every| StepCache::new(every, latent_len)),
        })
    }

    /// Bytes of the picture's pixels.
    pub fn pixel_bytes(&self) -> usize {
        let [width, height] = self.shape.size;
        width as usize * height as usize * self.channels.count()
    }

    /// Multiply-adds of one run of a network.
    pub fn macs(&self, network: NetworkIndex) -> u64 {
        macs(self.engine.graph(network), &self.engine.plan(network).tasks)
    }
}

/// A graph under its binding, while it is compared with the pipeline.
struct Network<'p> {
    graph: &'p Graph,
    binding: Binding,
}

impl<'p> Network<'p> {
    fn new(pack: &'p Pack, name: &str, binding: Binding) -> Result<Self, PipelineError> {
        Ok(Network { graph: pack.graph(name)?, binding })
    }

    fn shape(&self, id: ValueId) -> Result<Vec<usize>, PipelineError> {
        let value = self.graph.value(id);
        bind_shape(&value.shape, self.binding).map_err(|error| PipelineError::Dim {
            network: self.graph.name.clone(),
            value: value.name.clone(),
            error,
        })
    }

    /// Whether an input's batch is 1, whatever the binding.
    fn takes_one(&self, name: &str) -> bool {
        let batch = self.graph.input(name).and_then(|id| self.graph.value(id).shape.first());
        batch.and_then(|dim| dim.as_fixed()) == Some(1)
    }

    /// An input of this many values.
    fn expects(&self, name: &str, len: usize) -> Result<(), PipelineError> {
        let Some(id) = self.graph.input(name) else {
            return Err(self.wrong(name, "there is no such input".to_owned()));
        };
        let shape = self.shape(id)?;
        if shape.iter().product::<usize>() == len {
            return Ok(());
        }
        Err(self
            .wrong(name, format!("the network has {shape:?} but the pipeline feeds {len} values")))
    }

    /// No input besides.
    fn reads_only(&self, names: &[Option<&String>]) -> Result<(), PipelineError> {
        for &id in &self.graph.inputs {
            let name = &self.graph.value(id).name;
            if !names.iter().flatten().any(|known| *known == name) {
                return Err(self.wrong(name, "the pipeline feeds no such input".to_owned()));
            }
        }
        Ok(())
    }

    /// An output by name: its place and how many values it has.
    fn output(&self, name: &str) -> Result<(usize, usize), PipelineError> {
        let outputs = &self.graph.outputs;
        let place = outputs.iter().position(|&id| self.graph.value(id).name == name);
        let Some(place) = place else {
            return Err(self.wrong(name, "there is no such output".to_owned()));
        };
        Ok((place, self.shape(outputs[place])?.iter().product()))
    }

    /// The shape `[b, h, w, c]` of the first output, which must begin with these.
    fn first_output(&self, begin: &[usize]) -> Result<Vec<usize>, PipelineError> {
        let Some(&id) = self.graph.outputs.first() else {
            return Err(self.wrong("output 0", "there is none".to_owned()));
        };
        let shape = self.shape(id)?;
        if shape.len() == 4 && shape.starts_with(begin) {
            return Ok(shape);
        }
        let name = &self.graph.value(id).name;
        Err(self.wrong(
            name,
            format!("it is {shape:?} but should be 4-dimensional and begin with {begin:?}"),
        ))
    }

    fn wrong(&self, value: &str, problem: String) -> PipelineError {
        wiring_error(&self.graph.name, value, problem)
    }
}

fn wiring_error(network: &str, value: &str, problem: String) -> PipelineError {
    PipelineError::Wiring { network: network.to_owned(), value: value.to_owned(), problem }
}

/// Padding that text encoder and denoiser do without: only where the denoiser ignores the text states of padding, which are
/// zeros then.
fn padding(
    wiring: &Wiring,
    text: &Network<'_>,
    denoiser: &Network<'_>,
) -> Result<Vec<PaddedTokens>, PipelineError> {
    let (Some(text_mask), Some(mask)) = (&wiring.text_mask, &wiring.denoiser_mask) else {
        return Ok(Vec::new());
    };
    let (graph, input) = (denoiser.graph, |name: &str| denoiser.graph.input(name));
    let (Some(mask_id), Some(states)) = (input(mask), input(&wiring.denoiser_states)) else {
        return Ok(Vec::new());
    };
    if !ignores_padding(graph, denoiser.binding, mask_id, states).map_err(EngineError::from)? {
        return Ok(Vec::new());
    }
    let padded = |graph: &Graph, mask: &str, outputs| PaddedTokens {
        network: graph.name.clone(),
        mask: mask.to_owned(),
        outputs,
    };
    let outputs = vec![wiring.text_states.clone()];
    Ok(vec![padded(text.graph, text_mask, outputs), padded(graph, mask, Vec::new())])
}

/// Rows of the smallest table that is read by token ids, or by what is only a view of them.
fn id_rows(graph: &Graph, ids: &str) -> u32 {
    let mut is_ids: Vec<bool> = vec![false; graph.values.len()];
    if let Some(id) = graph.input(ids) {
        is_ids[id.index()] = true;
    }
    let mut rows = u32::MAX;
    for node in &graph.nodes {
        let reads = node.inputs.iter().any(|id| is_ids[id.index()]);
        match &node.op {
            Op::Gather { rows: table, .. } if reads => rows = rows.min(*table),
            Op::Reshape
            | Op::Slice { .. }
            | Op::Concat { .. }
            | Op::Expand
            | Op::Transpose { .. }
                if reads =>
            {
                is_ids[node.output.index()] = true;
            }
            _ => {}
        }
    }
    rows
}
