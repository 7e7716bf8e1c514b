//! What a network computes: ops over values, in execution order.
//!
//! Enters: JSON of a pack's `__metadata__`. Leaves: a [`Graph`] whose nodes refer to values by index.
//! Never: weights, memory, addresses, ONNX. A graph is data; `validate` checks it as untrusted input, the
//! planner binds its free dimensions, the engine runs it.

mod dim;
mod fault;
mod needs;
mod op;
mod rules;
mod shape;
mod validate;

pub use dim::{Binding, Dim, DimError};
pub use fault::{Fault, GraphError};
pub use needs::{TensorFacts, TensorNeed, tensor_needs};
pub use op::{
    Binary, Epilogue, InputScale, Op, PoolKind, ResizeMode, ShuffleOrder, Unary, Weight, Window,
};
pub use rules::{CONCAT_INPUTS_MAX, PRODUCTS_MAX, VALUE_RANK_MAX, WINDOW_MAX};
pub use shape::output_shape;
pub use validate::{NODES_MAX, VALUE_BYTES_MAX, VALUES_MAX, validate, validate_bound};

use serde::{Deserialize, Serialize};

/// The stored type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DType {
    /// 4 bytes.
    F32,
    /// 2 bytes; the usual type of activations.
    F16,
    /// 4 bytes: token ids.
    I32,
}

impl DType {
    /// Bytes of one value.
    pub const fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::F16 => 2,
        }
    }
}

/// Index of a value in [`Graph::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ValueId(pub u32);

impl ValueId {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A tensor that is computed, fed or read while a network runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// Unique in its graph.
    pub name: String,
    /// Outermost first.
    pub shape: Vec<Dim>,
    /// Stored type.
    pub dtype: DType,
}

/// One op with its operands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique in its graph; by the ONNX node it came from.
    pub name: String,
    /// What it computes.
    #[serde(flatten)]
    pub op: Op,
    /// Operands.
    pub inputs: Vec<ValueId>,
    /// The one result.
    pub output: ValueId,
}

/// One network: nodes in an order in which they can run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// `text_encoder`, `denoiser`, `decoder`, `refiner`, `enlarger`, or the file's name.
    pub name: String,
    /// All values, inputs and outputs among them.
    pub values: Vec<Value>,
    /// Topologically ordered.
    pub nodes: Vec<Node>,
    /// Fed from outside, in this order; found by name.
    pub inputs: Vec<ValueId>,
    /// Read from outside.
    pub outputs: Vec<ValueId>,
}

impl Graph {
    /// A value by id.
    ///
    /// # Panics
    /// If the id is not of this graph; `validate` has ruled that out for a pack's graphs.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// The input with this name.
    pub fn input(&self, name: &str) -> Option<ValueId> {
        self.inputs.iter().copied().find(|&id| self.value(id).name == name)
    }

    /// The output with this name.
    pub fn output(&self, name: &str) -> Option<ValueId> {
        self.outputs.iter().copied().find(|&id| self.value(id).name == name)
    }
}

/// The shape of a value under a binding.
///
/// # Errors
/// [`DimError`] of the first dimension that has no value.
pub fn bind_shape(shape: &[Dim], binding: Binding) -> Result<Vec<usize>, DimError> {
    shape.iter().map(|dim| dim.bind(binding)).collect()
}
