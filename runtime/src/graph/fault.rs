//! Why a graph is refused.

use super::{DType, DimError};
use crate::pack::TensorType;

/// A network that breaks a rule, with the place.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("network {graph:?}{place}: {fault}")]
pub struct GraphError {
    /// The network.
    pub graph: String,
    /// Empty, or `, node "name" (op)`.
    pub place: String,
    /// What is wrong.
    #[source]
    pub fault: Fault,
}

/// What is wrong with a node or a value.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Too many of something.
    #[error("its number of {what} is {actual} but at most {max} are allowed")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
        /// How many there are.
        actual: usize,
    },
    /// An empty name.
    #[error("one of its {0} has no name")]
    NoName(&'static str),
    /// A name is used again.
    #[error("two {what} are called {name:?}")]
    NameTwice {
        /// Values or nodes.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// An id without a value.
    #[error("it refers to value {id} but there are {values}")]
    NoValue {
        /// The id.
        id: u32,
        /// Values of the graph.
        values: usize,
    },
    /// Computed twice, or an input that is computed.
    #[error("value {0:?} is given twice")]
    GivenTwice(String),
    /// Read before it is there.
    #[error("value {0:?} is read before it is computed")]
    TooEarly(String),
    /// Never computed.
    #[error("value {0:?} is never computed")]
    Never(String),
    /// A network must yield something.
    #[error("it has no output")]
    NoOutput,
    /// Operands.
    #[error("its number of inputs is {actual} but must be {expected}")]
    Operands {
        /// A number or a range.
        expected: String,
        /// How many there are.
        actual: usize,
    },
    /// Dimensions.
    #[error("its {operand} has {actual} dimensions but needs {expected}")]
    Rank {
        /// `input 0`, `output`.
        operand: String,
        /// A number or a range.
        expected: String,
        /// How many there are.
        actual: usize,
    },
    /// One dimension.
    #[error("its {what} is {actual} but must be {expected}")]
    Size {
        /// Of which dimension or number.
        what: &'static str,
        /// What it must be.
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// One dimension must be a multiple.
    #[error("its {what} is {actual}, which does not divide by {divisor}")]
    Divides {
        /// Of which dimension.
        what: &'static str,
        /// What it is.
        actual: u64,
        /// By what.
        divisor: u64,
    },
    /// A number outside its range.
    #[error("its {what} is {actual} but must be {allowed}")]
    Parameter {
        /// Which.
        what: &'static str,
        /// The value.
        actual: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The sums of int8 products would overflow.
    #[error("it sums over {k} products but int8 weights allow {max}; keep this layer in f16")]
    TooManyProducts {
        /// Inputs of one output, padded.
        k: u64,
        /// The limit.
        max: u64,
    },
    /// A stored type.
    #[error("its {operand} is {actual:?} but must be {expected}")]
    DType {
        /// `input 0`, `output`.
        operand: String,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        actual: DType,
    },
    /// The size of channels must be the same under every binding.
    #[error("its {0} must be a fixed number")]
    NotFixed(&'static str),
    /// A weight that is not in the pack.
    #[error("it needs tensor {0:?}, which the pack lacks")]
    NoTensor(String),
    /// A weight that must not, or must, be named.
    #[error("its weight {problem}")]
    WeightForm {
        /// What is wrong.
        problem: &'static str,
    },
    /// A weight of another type.
    #[error("tensor {tensor:?} is {} but must be {}", actual.name(), expected.name())]
    TensorType {
        /// Its name.
        tensor: String,
        /// What it must be.
        expected: TensorType,
        /// What it is.
        actual: TensorType,
    },
    /// A weight of another size.
    #[error("tensor {tensor:?} has {actual} values but needs {expected}")]
    TensorSize {
        /// Its name.
        tensor: String,
        /// What it must have.
        expected: u64,
        /// What it has.
        actual: u64,
    },
    /// A dimension without a value.
    #[error("value {value:?}: {error}")]
    Dim {
        /// Its name.
        value: String,
        /// Why.
        error: DimError,
    },
    /// A value that no machine holds.
    #[error("value {value:?} has more than {max} bytes")]
    TooLarge {
        /// Its name.
        value: String,
        /// The limit.
        max: u64,
    },
    /// The shape that is stated is not the one that is computed.
    #[error("its output is stated as {stated:?} but is {computed:?}")]
    Output {
        /// By the graph.
        stated: Vec<usize>,
        /// From the inputs.
        computed: Vec<usize>,
    },
    /// Operands that do not fit each other.
    #[error("its inputs have shapes {left:?} and {right:?}, which do not fit each other")]
    Mismatch {
        /// One operand.
        left: Vec<usize>,
        /// The other.
        right: Vec<usize>,
    },
}
