//! Float runs over samples, kept value by value.

use std::collections::BTreeMap;

use plantain::graph::{Binding, Graph, ValueId, bind_shape};

use crate::evaluate::{Array, EvaluateError, Evaluator, Precision, Values, WeightSource};

/// Inputs of one run by name.
pub type Inputs = BTreeMap<String, Array>;

/// What calibration runs on.
#[derive(Clone, Debug)]
pub struct Samples {
    /// Sizes of every sample.
    pub binding: Binding,
    /// At least one.
    pub inputs: Vec<Inputs>,
}

/// Bytes of kept values above which fewer samples run.
const VALUES_BYTES_MAX: usize = 3 << 30;

/// Float runs of one network.
pub struct Runs {
    /// By sample.
    pub values: Vec<Values>,
}

impl Runs {
    /// Runs as many samples as fit, at least one.
    ///
    /// # Errors
    /// [`EvaluateError`]
    pub fn new(
        graph: &Graph,
        weights: &dyn WeightSource,
        samples: &Samples,
    ) -> Result<Self, EvaluateError> {
        let mut bytes = 0;
        for value in &graph.values {
            bytes += bind_shape(&value.shape, samples.binding)?.iter().product::<usize>() * 4;
        }
        let count = (VALUES_BYTES_MAX / bytes.max(1)).max(1);
        let evaluator = Evaluator::new(graph, weights, samples.binding);
        let values = samples
            .inputs
            .iter()
            .take(count)
            .map(|inputs| evaluator.run(inputs, Precision::default()))
            .collect::<Result<_, _>>()?;
        Ok(Runs { values })
    }

    /// A value in every sample.
    pub fn of(&self, id: ValueId) -> impl Iterator<Item = &Array> + Clone {
        self.values.iter().filter_map(move |values| values[id.index()].as_ref())
    }

    /// Mean square of each channel of a value.
    pub fn energy(&self, id: ValueId, channels: usize) -> Vec<f32> {
        let mut sums = vec![0.0f64; channels];
        let mut count = 0usize;
        for cell in self.of(id).flat_map(|array| array.values.chunks(channels)) {
            sums.iter_mut().zip(cell).for_each(|(sum, &x)| *sum += f64::from(x).powi(2));
            count += 1;
        }
        sums.into_iter().map(|sum| (sum / count.max(1) as f64) as f32).collect()
    }

    /// Largest magnitude of each channel of a value.
    pub fn peaks(&self, id: ValueId, channels: usize) -> Vec<f32> {
        let mut peaks = vec![0.0f32; channels];
        for cell in self.of(id).flat_map(|array| array.values.chunks(channels)) {
            peaks.iter_mut().zip(cell).for_each(|(peak, &x)| *peak = peak.max(x.abs()));
        }
        peaks
    }

    /// Largest magnitude of a value.
    pub fn peak(&self, id: ValueId) -> f32 {
        self.of(id).flat_map(|array| &array.values).fold(0.0f32, |m, x| m.max(x.abs()))
    }
}
