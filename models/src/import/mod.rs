//! Import: an ONNX network through tract, as a [`flow::Flow`].
//!
//! Enters: an ONNX file, its external data beside it. Leaves: a flow in the model's own axes whose
//! dimensions are known at every binding, and a [`FloatReference`] that runs tract's float model. Never: the
//! runtime's layout, fused ops, quantised numbers.

mod convert;
mod error;
pub mod flow;
mod model;
mod onnx;
mod reference;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use plantain::graph::{Binary, Binding};

pub use error::ImportError;
pub use reference::FloatReference;

use crate::lower::fit::Sampling;
use flow::{Flow, Kind, Node, Size};
use onnx::OnnxFile;

/// What the caller may decide.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Sizes for free dimensions by their symbol in the ONNX file, for example `sequence = 77`.
    pub sizes: BTreeMap<String, usize>,
}

/// An imported network.
pub struct Imported {
    /// Its graph.
    pub flow: Flow,
    /// The bindings at which its sizes are known.
    pub sampling: Sampling,
    /// Height and width must be multiples of this where they are free.
    pub unit: u32,
    path: PathBuf,
    options: ImportOptions,
}

/// Multiples of height and width that are tried, smallest first.
const UNITS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Imports a network from a file, or from `model.onnx` in a folder.
///
/// # Errors
/// [`ImportError`]: the file, its external data, an op, or its shapes.
pub fn import(path: &Path, options: &ImportOptions) -> Result<Imported, ImportError> {
    let mut onnx = OnnxFile::open(path, &options.sizes)?;
    let free = onnx.free;
    let done = |flow, sampling, unit| {
        let (path, options) = (path.to_owned(), options.clone());
        Imported { flow, sampling, unit, path, options }
    };
    let spatial = free.height || free.width;
    if !spatial && !free.batch {
        let sampling = Sampling::fixed(onnx.fixed_binding());
        let flow = model::flow(&mut onnx, sampling.bindings[0])?;
        return Ok(done(flow, sampling, 1));
    }
    let units: &[u32] = if spatial { &UNITS } else { &UNITS[..1] };
    let mut last = None;
    for &unit in units {
        let sampling = Sampling::corners(free, unit);
        match at_all(&mut onnx, &sampling) {
            Ok(flow) => return Ok(done(flow, sampling, unit)),
            Err(error) if spatial => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    let message = last.map_or_else(String::new, |error| error.to_string());
    let tried = format!("{UNITS:?}");
    Err(ImportError::Sizes { path: onnx.path, tried, message })
}

fn at_all(onnx: &mut OnnxFile, sampling: &Sampling) -> Result<Flow, ImportError> {
    let mut merged: Option<Flow> = None;
    for &binding in &sampling.bindings {
        let flow = model::flow(onnx, binding)?;
        merged = Some(match merged {
            None => flow,
            Some(known) => merge(known, &flow)
                .map_err(|node| ImportError::Structure { path: onnx.path.clone(), node })?,
        });
    }
    let flow = merged.unwrap_or_default();
    let unfit = |node: &&Node| node.shape.iter().any(|size| sampling.dim(size).is_none());
    if let Some(node) = flow.nodes.iter().find(unfit) {
        return Err(ImportError::Structure { path: onnx.path.clone(), node: node.name.clone() });
    }
    Ok(flow)
}

/// Adds another binding's sizes to a flow; the name of a node where the two differ is the error.
fn merge(known: Flow, other: &Flow) -> Result<Flow, String> {
    let mut merged = Flow { nodes: Vec::new(), bindings: known.bindings + 1, ..known };
    let key = |node: &Node, count: &mut HashMap<String, usize>| {
        let n = count.entry(node.name.clone()).or_default();
        *n += 1;
        (node.name.clone(), *n)
    };
    let mut count = HashMap::new();
    let theirs: HashMap<(String, usize), usize> =
        other.nodes.iter().enumerate().map(|(id, node)| (key(node, &mut count), id)).collect();
    count.clear();
    let mut ids = Vec::with_capacity(known.nodes.len());
    for node in known.nodes {
        let name = node.name.clone();
        let id = *theirs.get(&key(&node, &mut count)).ok_or_else(|| name.clone())?;
        ids.push(id);
        let twin = &other.nodes[id];
        let mut mine: Vec<usize> = node.inputs.iter().map(|&input| ids[input]).collect();
        // tract puts the larger operand of a sum or product first.
        let commutes = matches!(node.kind, Kind::Binary(Binary::Add | Binary::Mul));
        if commutes && mine != twin.inputs {
            mine.reverse();
        }
        let same = mine == twin.inputs && node.shape.len() == twin.shape.len();
        let node = merge_node(node, twin, known.bindings).filter(|_| same);
        merged.nodes.push(node.ok_or(name)?);
    }
    Ok(merged)
}

/// `known`: bindings of `a`.
fn merge_node(a: Node, b: &Node, known: usize) -> Option<Node> {
    let single = |tensor: &crate::lower::FloatTensor| match tensor.data[..] {
        [value] => Some(value),
        _ => None,
    };
    let append = |a: &Size, b: &Size| Size::new([a.at(), b.at()].concat());
    let kind = match (a.kind, &b.kind) {
        (Kind::Slice(axis, from), Kind::Slice(other, to)) if axis == *other => {
            Kind::Slice(axis, append(&from, to))
        }
        (Kind::Constant(x), Kind::Constant(y)) if *x == **y => Kind::Constant(x),
        (Kind::Constant(x), Kind::Constant(y)) => match (single(&x), single(y)) {
            // So far it was the same everywhere.
            (Some(a_value), Some(b_value)) => {
                let mut values = vec![a_value; a.shape.first().map_or(known, Size::bindings)];
                values.push(b_value);
                Kind::Varying(values)
            }
            _ => Kind::Varying(Vec::new()),
        },
        (Kind::Varying(mut values), Kind::Constant(y)) => match single(y) {
            Some(value) if !values.is_empty() => {
                values.push(value);
                Kind::Varying(values)
            }
            _ => Kind::Varying(Vec::new()),
        },
        (kind, other) => {
            let equal = format!("{kind:?}") == format!("{other:?}");
            equal.then_some(kind)?
        }
    };
    let shape = a.shape.iter().zip(&b.shape).map(|(x, y)| append(x, y)).collect();
    Some(Node { kind, shape, ..a })
}

impl Imported {
    /// tract's float run of this network at a binding; for a network of fixed sizes the binding
    /// does not matter. Reads the file again.
    ///
    /// # Errors
    /// [`ImportError`] if the network has no such size.
    pub fn reference(&self, binding: Binding) -> Result<FloatReference, ImportError> {
        let mut onnx = OnnxFile::open(&self.path, &self.options.sizes)?;
        let model = model::typed(&mut onnx, binding)?;
        let traced = self.flow.nodes.iter().filter(|node| node.traced);
        let names = traced.map(|node| node.name.as_str()).collect();
        Ok(FloatReference::new(onnx.path, model, binding, &names))
    }

    /// Lets go of the weights once the network is lowered; what is left serves
    /// [`Imported::reference`].
    pub fn forget_weights(&mut self) {
        for node in &mut self.flow.nodes {
            if let Kind::Constant(_) = node.kind {
                node.kind = Kind::Varying(Vec::new());
            }
        }
    }
}
