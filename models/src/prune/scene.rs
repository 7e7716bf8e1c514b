//! What a model draws on known prompts: the runs of its networks, and how far another picture is.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use plantain::graph::Binding;

use super::PruneError;
use crate::chain::{Chain, ChainError, EvaluatorRun, NetworkRun, Request};
use crate::evaluate::Array;
use crate::lower::FloatNetwork;
use crate::packing::Pipeline;
use crate::quantise::Inputs;

/// One run of one network.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its name.
    pub network: String,
    /// Sizes.
    pub binding: Binding,
    /// By name.
    pub inputs: Inputs,
    /// In the graph's order.
    pub outputs: Vec<Array>,
}

/// The runs on the way to one result.
#[derive(Clone, Debug, Default)]
pub struct Shot {
    /// In order.
    pub runs: Vec<Run>,
    /// Bytes of the picture, or the outputs of a lone network.
    pub result: Vec<f32>,
}

/// What is run.
#[derive(Clone, Debug)]
pub enum Task {
    /// A picture.
    Picture(Request),
    /// The states of a text, nothing else.
    Text(String),
    /// A lone network.
    Network(Binding, Inputs),
}

/// What a task gives.
pub enum Outcome {
    /// Bytes of a picture.
    Picture(Vec<u8>),
    /// The mean state of a text, or the outputs of a lone network one behind the other.
    Values(Vec<f32>),
}

impl Task {
    /// Draws or reads with the chain, or runs the network `lone`. What needs a chain is empty without one.
    ///
    /// # Errors
    /// [`PruneError`] if a run fails.
    pub fn run(
        &self,
        chain: Option<&Chain>,
        networks: &dyn NetworkRun,
        lone: &str,
    ) -> Result<Outcome, PruneError> {
        match (self, chain) {
            (Task::Picture(request), Some(chain)) => {
                Ok(Outcome::Picture(chain.draw(request)?.picture))
            }
            (Task::Text(text), Some(chain)) => Ok(Outcome::Values(chain.mean_state(text)?)),
            (Task::Picture(_) | Task::Text(_), None) => Ok(Outcome::Values(Vec::new())),
            (Task::Network(binding, inputs), _) => {
                let network = lone.to_owned();
                let outputs = networks
                    .run(&network, *binding, inputs)
                    .map_err(|source| ChainError::Network { network, source })?;
                Ok(Outcome::Values(outputs.into_iter().flat_map(|array| array.values).collect()))
            }
        }
    }
}

/// The chain of a model's networks; none for a lone network.
///
/// # Errors
/// [`PruneError`] if the tokenizer's tables are no tables.
pub fn chain<'a>(
    pipeline: Option<&'a Pipeline>,
    networks: &'a dyn NetworkRun,
) -> Result<Option<Chain<'a>>, PruneError> {
    let chain = |pipeline: &'a Pipeline| {
        let tables = &pipeline.tokenizer;
        Chain::new(&pipeline.spec, &tables.vocabulary, tables.merges.as_deref(), networks)
    };
    Ok(pipeline.map(chain).transpose()?)
}

/// Runs tasks with the networks of a model.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// Absent for a lone network.
    pub pipeline: Option<&'a Pipeline>,
    /// The mask of a text's tokens, where the text encoder has one, by network and input.
    pub mask: Option<(&'a str, &'a str)>,
}

/// Evaluates networks and keeps what they were given and what they made.
struct Recorder<'a> {
    float: EvaluatorRun<'a>,
    known: &'a [Run],
    changed: Option<&'a str>,
    runs: RefCell<Vec<Run>>,
}

impl NetworkRun for Recorder<'_> {
    fn run(
        &self,
        name: &str,
        binding: Binding,
        inputs: &Inputs,
    ) -> Result<Vec<Array>, Box<dyn std::error::Error + Send + Sync>> {
        let same = |run: &&Run| run.network == name && run.inputs == *inputs;
        let known = self.known.iter().filter(|_| self.changed != Some(name)).find(same);
        let outputs = match known {
            Some(run) => run.outputs.clone(),
            None => self.float.run(name, binding, inputs)?,
        };
        let (network, inputs, result) = (name.to_owned(), inputs.clone(), outputs.clone());
        self.runs.borrow_mut().push(Run { network, binding, inputs, outputs: result });
        Ok(outputs)
    }

    fn has(&self, network: &str) -> bool {
        self.float.has(network)
    }
}

impl<'a> Scene<'a> {
    /// Of a model's pipeline, or of a lone network.
    pub fn new(pipeline: Option<&'a Pipeline>) -> Self {
        let mask = pipeline.and_then(|pipeline| pipeline.spec.wiring.text_mask.as_deref());
        Scene { pipeline, mask: mask.map(|input| ("text_encoder", input)) }
    }

    /// Runs tasks. What `known` runs (of the same task) say is not computed again, but for the network that changed.
    ///
    /// # Errors
    /// [`PruneError`]
    pub fn shoot(
        &self,
        networks: &[&FloatNetwork],
        tasks: &[Task],
        known: &[Shot],
        changed: Option<&str>,
    ) -> Result<Vec<Shot>, PruneError> {
        let indices: Vec<usize> = (0..tasks.len()).collect();
        let lone = networks.first().map_or("", |network| &network.graph.name);
        parallel(&indices, |&index| {
            let recorder = Recorder {
                float: EvaluatorRun {
                    networks: networks.iter().map(|n| (n.graph.name.as_str(), *n)).collect(),
                },
                known: known.get(index).map_or(&[], |shot| &shot.runs),
                changed,
                runs: RefCell::default(),
            };
            let outcome =
                tasks[index].run(chain(self.pipeline, &recorder)?.as_ref(), &recorder, lone)?;
            let result = match outcome {
                Outcome::Picture(bytes) => bytes.into_iter().map(f32::from).collect(),
                Outcome::Values(values) => values,
            };
            Ok(Shot { runs: recorder.runs.into_inner(), result })
        })
    }

    /// Which tokens of a run count, if it is the text encoder's.
    pub fn tokens<'r>(&self, network: &str, inputs: &'r Inputs) -> Option<&'r [f32]> {
        let (_, input) = self.mask.filter(|(name, _)| *name == network)?;
        inputs.get(input).map(|array| &array.values[..])
    }
}

/// Mean squared error of results, summed over tasks.
pub fn squared_error(reference: &[Shot], found: &[Shot]) -> f64 {
    let one = |(reference, found): (&Shot, &Shot)| {
        let pairs = reference.result.iter().zip(&found.result);
        pairs.map(|(&r, &f)| f64::from(r - f).powi(2)).sum::<f64>()
            / reference.result.len().max(1) as f64
    };
    reference.iter().zip(found).map(one).sum()
}

/// Maps items on all cores, in order.
pub fn parallel<T: Sync, R: Send, E: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, work(item)));
        }
    };
    let mut found: Vec<(usize, Result<R, E>)> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let joined = handles.into_iter().map(|handle| handle.join());
        joined
            .flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, result)| result).collect()
}
