//! A network in float form: the plantain graph, its weights, and where each value came from.

use std::collections::BTreeMap;

use plantain::graph::{Binding, Dim, Graph, ValueId, bind_shape};

/// A stored float tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatTensor {
    /// Outermost first.
    pub shape: Vec<usize>,
    /// As many values as the shape's product.
    pub data: Vec<f32>,
}

impl FloatTensor {
    /// A tensor of these values.
    ///
    /// # Panics
    /// If the shape's product is not the number of values.
    pub fn new(shape: Vec<usize>, data: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "{shape:?} does not fit its data");
        FloatTensor { shape, data }
    }
}

/// Where a value of the plantain graph stands in the imported model: take the tensor at `outlet`,
/// reshape it to `split`, transpose by `permutation` (output axis `i` is axis `permutation[i]`), and
/// reshape to the value's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// Name of the imported model's node (its first output).
    pub outlet: String,
    /// The imported tensor's dimensions, split as far as the permutation needs.
    pub split: Vec<Dim>,
    /// From `split` to the value's order.
    pub permutation: Vec<usize>,
}

/// The dimensions that a network leaves open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FreeDims {
    /// Any batch works.
    pub batch: bool,
    /// Any multiple of `unit` works as height.
    pub height: bool,
    /// Any multiple of `unit` works as width.
    pub width: bool,
}

/// A lowered network before quantisation.
///
/// Every weighted op stands in its f16 form ([`plantain::graph::Op::MatmulF16`],
/// [`plantain::graph::Op::ConvF16`], `Depthwise`, `Gather` without scale) and its `Weight::panels` (or
/// `table`, `weight`) names the plain f32 array in `weights`: matmul `[n, k]`, convolution
/// `[n, kernel_rows, kernel_columns, c]`, depthwise `[kernel_rows, kernel_columns, c]`, table `[rows, c]`.
/// `scale` and `sums` are absent. Biases, gammas, frequencies and constants are in `weights` too.
#[derive(Clone, Debug)]
pub struct FloatNetwork {
    /// In execution order.
    pub graph: Graph,
    /// By the names that the graph's ops use.
    pub weights: BTreeMap<String, FloatTensor>,
    /// For each value that stands for a tensor of the imported model.
    pub origins: BTreeMap<ValueId, Origin>,
    /// What may still be chosen at plan time.
    pub free: FreeDims,
    /// Height and width must be multiples of this where they are free.
    pub unit: u32,
    /// The sizes that the network was imported at; for a fixed network the only ones.
    pub binding: Binding,
}

impl FloatNetwork {
    /// The shape of a value under a binding.
    ///
    /// # Errors
    /// [`plantain::graph::DimError`] of the first dimension that has no value.
    pub fn shape(
        &self,
        value: ValueId,
        binding: Binding,
    ) -> Result<Vec<usize>, plantain::graph::DimError> {
        bind_shape(&self.graph.value(value).shape, binding)
    }

    /// A stored tensor.
    ///
    /// # Panics
    /// If the graph does not use the name: names come from the graph.
    pub fn weight(&self, name: &str) -> &FloatTensor {
        self.weights.get(name).unwrap_or_else(|| panic!("the network has no tensor {name:?}"))
    }
}
