//! What import hands to lowering: a plain dataflow graph in the model's own axes.
//!
//! Every dimension carries its size at each binding that the network was imported at, so that two
//! dimensions are equal only if they are equal at all of them.

use std::sync::Arc;

use plantain::graph::{Binary, PoolKind, ResizeMode, Unary};

use crate::lower::FloatTensor;

/// A dimension: its size at each binding.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Size(Vec<usize>);

impl std::fmt::Debug for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.fixed() {
            Some(n) => write!(f, "{n}"),
            None => write!(f, "{:?}", self.0),
        }
    }
}

impl Size {
    /// From its sizes, one for each binding.
    pub fn new(sizes: Vec<usize>) -> Self {
        Size(sizes)
    }

    /// The same at `bindings` bindings.
    pub fn same(value: usize, bindings: usize) -> Self {
        Size(vec![value; bindings])
    }

    /// Sizes by binding.
    pub fn at(&self) -> &[usize] {
        &self.0
    }

    /// The size, if it is the same everywhere.
    pub fn fixed(&self) -> Option<usize> {
        self.0.iter().all(|&n| n == self.0[0]).then_some(self.0[0])
    }

    /// One at every binding.
    pub fn is_one(&self) -> bool {
        self.0.iter().all(|&n| n == 1)
    }

    /// Bindings.
    pub fn bindings(&self) -> usize {
        self.0.len()
    }

    /// Applies a function of two sizes at each binding.
    pub fn zip(&self, other: &Size, f: impl Fn(usize, usize) -> usize) -> Size {
        Size(self.0.iter().zip(&other.0).map(|(&a, &b)| f(a, b)).collect())
    }

    /// The product.
    pub fn times(&self, other: &Size) -> Size {
        self.zip(other, |a, b| a * b)
    }

    /// The quotient, if it is whole at every binding.
    pub fn over(&self, other: &Size) -> Option<Size> {
        let whole = self.0.iter().zip(&other.0).all(|(&a, &b)| b > 0 && a % b == 0);
        whole.then(|| self.zip(other, |a, b| a / b))
    }

    /// The product of many.
    pub fn product<'a>(sizes: impl IntoIterator<Item = &'a Size>, bindings: usize) -> Size {
        sizes.into_iter().fold(Size::same(1, bindings), |a, b| a.times(b))
    }
}

/// Index of a node in [`Flow::nodes`].
pub type Id = usize;

/// Element type of a flow value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Any float; computed in f32.
    Float,
    /// Any integer or boolean.
    Int,
}

/// A sum of products over named axes; `a[..] * b[..]` summed over the labels that the output lacks.
#[derive(Clone, Debug, PartialEq)]
pub struct Einsum {
    /// Labels of each input's axes.
    pub inputs: Vec<Vec<char>>,
    /// Labels of the output's axes.
    pub output: Vec<char>,
}

/// A convolution over `[n, c, spatial..]` with its kernel (second input) as a constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Convolution {
    /// Axis of the samples, if any.
    pub batch_axis: Option<usize>,
    /// Axis of the channels.
    pub channel_axis: usize,
    /// Axes of the image, top to bottom and left to right (one or two).
    pub spatial_axes: Vec<usize>,
    /// Window by spatial axis.
    pub kernel: Vec<usize>,
    /// Steps by spatial axis.
    pub stride: Vec<usize>,
    /// Steps inside the window by spatial axis.
    pub dilation: Vec<usize>,
    /// Zeros before and after, by spatial axis.
    pub pad: Vec<(usize, usize)>,
    /// Groups of channels.
    pub groups: usize,
}

/// How a reduction combines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// Sum.
    Sum,
    /// Sum divided by the count; made by `fuse` only.
    Mean,
    /// Mean of the squares.
    MeanOfSquares,
}

/// What a node computes. Ops below the line exist only after fusing.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Fed from outside.
    Input,
    /// Known at pack time. Shape is the tensor's.
    Constant(Arc<FloatTensor>),
    /// A constant that is not the same at all bindings, so that no pack can hold it: its values by
    /// binding if it is a single number, else nothing.
    Varying(Vec<f32>),
    /// An op of the imported model that has no form here; refused if an output needs it.
    Unsupported(String),
    /// A function of each value.
    Unary(Unary),
    /// `x ^ exponent`.
    Power(f32),
    /// A function of two values of equal rank.
    Binary(Binary),
    /// Sum of products.
    Einsum(Einsum),
    /// Inputs: x, kernel `[o, i / groups, window..]` constant, bias constant `[o]`.
    Conv(Convolution),
    /// Output axis `i` is input axis `p[i]`.
    Permute(Vec<usize>),
    /// To the node's shape, row-major order kept.
    Reshape,
    /// Axes of one repeat to the node's shape.
    Broadcast,
    /// Over axes that stay with length one.
    Reduce(Fold, Vec<usize>),
    /// Over one axis.
    Softmax(usize),
    /// Joins along an axis.
    Concat(usize),
    /// A range of an axis, from here; the length is in the shape.
    Slice(usize, Size),
    /// Cells before and after by axis, and their value.
    Pad(Vec<(usize, usize)>, f32),
    /// Takes entries of axis 0 of a table (first input) by ids (second input).
    Gather,
    /// To the node's element type.
    Cast,
    /// Whole factors by axis.
    Resize(Vec<usize>, ResizeMode),
    /// Pooling.
    Pool(Convolution, PoolKind),
    /// `x / sqrt(mean(x^2) + eps)` along an axis.
    RmsNorm(usize, f32),
    /// q, k, v `[batch.., heads, tokens, d]`, optional mask.
    Sdpa {
        /// Factor on the scores.
        scale: f32,
        /// Key `j` is seen by query `i` only if `j <= i`.
        causal: bool,
    },
    // ---- made by `fuse` ----
    /// x, gamma, beta constants of the axis' length.
    LayerNorm {
        /// Normed axis.
        axis: usize,
        /// Inside the root.
        eps: f32,
    },
    /// x, gamma constant of the axis' length.
    ScaledRmsNorm {
        /// Normed axis.
        axis: usize,
        /// Inside the root.
        eps: f32,
    },
    /// x `[n, c, spatial..]`, gamma, beta constants `[c]`.
    GroupNorm {
        /// Groups of channels.
        groups: usize,
        /// Inside the root.
        eps: f32,
    },
    /// x and the weights `[n.., k..]` of an einsum with a bias constant of the weights' output axes.
    Linear {
        /// Axes of x that are summed over, in the order of the weights' k axes.
        inner: Vec<usize>,
        /// For each output axis: an axis of x, or an axis of the weights' outputs.
        output: Vec<LinearAxis>,
    },
    /// q `[batch.., m, d]`, k and v `[batch.., t, d]`, optional additive mask `[batch.., m, t]`.
    Attention {
        /// Factor on the scores.
        scale: f32,
        /// Key `j` is seen by query `i` only if `j <= i`.
        causal: bool,
    },
    /// `a * f(g)` with a, g the halves of an axis, the second one gating.
    Gated(usize, Unary),
    /// `x * (1 + scale) + shift`.
    Modulate,
    /// t `[n]` or `[n, 1]`, frequencies constant; cosines and sines along the last axis.
    Timestep {
        /// Sines first.
        sin_first: bool,
    },
}

/// Where an output axis of [`Kind::Linear`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearAxis {
    /// This axis of x.
    Kept(usize),
    /// This output axis of the weights.
    Made(usize),
    /// An axis of one.
    One,
}

/// One value and how it is computed.
#[derive(Clone, Debug)]
pub struct Node {
    /// Of the imported model's node.
    pub name: String,
    /// What it computes.
    pub kind: Kind,
    /// Operands.
    pub inputs: Vec<Id>,
    /// In the model's axes.
    pub shape: Vec<Size>,
    /// Element type.
    pub element: Element,
    /// The value is a tensor of the imported model under this node's name.
    pub traced: bool,
}

/// A network before lowering, in an order in which it can run.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// Nodes; operands come first.
    pub nodes: Vec<Node>,
    /// Fed from outside, in the model's order.
    pub inputs: Vec<Id>,
    /// Read from outside, with the model's names for them.
    pub outputs: Vec<(String, Id)>,
    /// Bindings at which sizes are known.
    pub bindings: usize,
}

impl Flow {
    /// The constant behind a node.
    pub fn constant(&self, id: Id) -> Option<&Arc<FloatTensor>> {
        match &self.nodes[id].kind {
            Kind::Constant(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The value of a constant whose entries are all the same.
    pub fn scalar(&self, id: Id) -> Option<f32> {
        let tensor = self.constant(id)?;
        let first = *tensor.data.first()?;
        tensor.data.iter().all(|&v| v == first).then_some(first)
    }

    /// How many operands and outputs refer to each node.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.nodes.len()];
        for &id in self.nodes.iter().flat_map(|n| &n.inputs) {
            uses[id] += 1;
        }
        for &(_, id) in &self.outputs {
            uses[id] += 1;
        }
        uses
    }
}
