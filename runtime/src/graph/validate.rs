//! Checks of a graph that came from an untrusted pack.
//!
//! Enters: a parsed [`Graph`], what the pack holds under each name, later a binding. Leaves: nothing, or
//! every value's shape; after both, planner and kernels rely on every rule of [`super::Op`]. Never: a panic.

use std::collections::HashSet;

use super::rules::{VALUE_RANK_MAX, check_dtypes, check_operands, check_parameters};
use super::shape::output_shape;
use super::{
    Binding, DType, Fault, Graph, GraphError, Node, TensorFacts, ValueId, bind_shape, tensor_needs,
};

/// The most nodes of a graph.
pub const NODES_MAX: usize = 1 << 16;
/// The most values of a graph.
pub const VALUES_MAX: usize = 1 << 17;
/// The most bytes of one value: no machine runs a graph near it, and sums of all values fit 64 bits.
pub const VALUE_BYTES_MAX: u64 = 1 << 40;
/// The longest name of a value or node, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// The most inputs, and the most outputs, of a graph.
const PORTS_MAX: usize = 64;

/// Checks all that holds under every binding: names, order, operands, types, numbers, tensors.
///
/// `tensor` says what the pack holds under a name. A graph without free dimensions is checked whole.
///
/// # Errors
/// [`GraphError`] with the first rule that is broken.
pub fn validate(
    graph: &Graph,
    tensor: &dyn Fn(&str) -> Option<TensorFacts>,
) -> Result<(), GraphError> {
    check_values(graph).map_err(|fault| whole(graph, fault))?;
    let mut given = vec![false; graph.values.len()];
    for &id in &graph.inputs {
        give(graph, &mut given, id).map_err(|fault| whole(graph, fault))?;
    }
    let mut names = HashSet::new();
    for node in &graph.nodes {
        let mut check = || {
            check_name("nodes", &node.name)?;
            if !names.insert(&*node.name) {
                return Err(Fault::NameTwice { what: "nodes", name: node.name.clone() });
            }
            for &id in &node.inputs {
                check_id(graph, id)?;
                if !given[id.index()] {
                    return Err(Fault::TooEarly(graph.value(id).name.clone()));
                }
            }
            give(graph, &mut given, node.output)?;
            check_node(graph, node, tensor)
        };
        check().map_err(|fault| at(graph, node, fault))?;
    }
    check_outputs(graph, &given).map_err(|fault| whole(graph, fault))?;
    let free = graph.values.iter().flat_map(|value| &value.shape).any(|d| d.as_fixed().is_none());
    if !free {
        validate_bound(graph, Binding { batch: 1, height: 1, width: 1 })?;
    }
    Ok(())
}

/// Checks every shape under a binding and returns them by value.
///
/// # Errors
/// [`GraphError`] if a dimension has no value, a value is too large, or shapes do not follow from each other.
///
/// # Panics
/// If [`validate`] would refuse the graph for the order of its nodes or an id.
pub fn validate_bound(graph: &Graph, binding: Binding) -> Result<Vec<Vec<usize>>, GraphError> {
    let mut shapes = Vec::with_capacity(graph.values.len());
    for value in &graph.values {
        let shape = bind_shape(&value.shape, binding)
            .map_err(|error| whole(graph, Fault::Dim { value: value.name.clone(), error }))?;
        let bytes = shape
            .iter()
            .try_fold(value.dtype.bytes() as u64, |bytes, &dim| bytes.checked_mul(dim as u64))
            .filter(|&bytes| bytes <= VALUE_BYTES_MAX && isize::try_from(bytes).is_ok());
        if bytes.is_none() {
            let fault = Fault::TooLarge { value: value.name.clone(), max: VALUE_BYTES_MAX };
            return Err(whole(graph, fault));
        }
        shapes.push(shape);
    }
    for node in &graph.nodes {
        let inputs: Vec<&[usize]> = node.inputs.iter().map(|id| &*shapes[id.index()]).collect();
        let stated = &shapes[node.output.index()];
        output_shape(&node.op, &inputs, stated, binding)
            .and_then(|computed| {
                let fault = || Fault::Output { stated: stated.clone(), computed: computed.clone() };
                (computed == *stated).then_some(()).ok_or_else(fault)
            })
            .map_err(|fault| at(graph, node, fault))?;
    }
    Ok(shapes)
}

fn whole(graph: &Graph, fault: Fault) -> GraphError {
    GraphError { graph: short(&graph.name), place: String::new(), fault }
}

fn at(graph: &Graph, node: &Node, fault: Fault) -> GraphError {
    let place = format!(", node {:?} ({})", short(&node.name), node.op.name());
    GraphError { graph: short(&graph.name), place, fault }
}

/// At most 80 characters of a name that may be anything.
fn short(name: &str) -> String {
    name.chars().take(80).collect()
}

fn limit(what: &'static str, actual: usize, max: usize) -> Result<(), Fault> {
    (actual <= max).then_some(()).ok_or(Fault::Limit { what, max, actual })
}

fn check_name(what: &'static str, name: &str) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(Fault::NoName(what));
    }
    limit("bytes in a name", name.len(), NAME_BYTES_MAX)
}

fn check_id(graph: &Graph, id: ValueId) -> Result<(), Fault> {
    let values = graph.values.len();
    (id.index() < values).then_some(()).ok_or(Fault::NoValue { id: id.0, values })
}

fn check_values(graph: &Graph) -> Result<(), Fault> {
    check_name("networks", &graph.name)?;
    limit("values", graph.values.len(), VALUES_MAX)?;
    limit("nodes", graph.nodes.len(), NODES_MAX)?;
    limit("inputs", graph.inputs.len(), PORTS_MAX)?;
    limit("outputs", graph.outputs.len(), PORTS_MAX)?;
    let mut names = HashSet::new();
    for value in &graph.values {
        check_name("values", &value.name)?;
        limit("dimensions in a value", value.shape.len(), VALUE_RANK_MAX)?;
        if !names.insert(&*value.name) {
            return Err(Fault::NameTwice { what: "values", name: value.name.clone() });
        }
    }
    Ok(())
}

fn give(graph: &Graph, given: &mut [bool], id: ValueId) -> Result<(), Fault> {
    check_id(graph, id)?;
    if std::mem::replace(&mut given[id.index()], true) {
        return Err(Fault::GivenTwice(graph.value(id).name.clone()));
    }
    Ok(())
}

fn check_outputs(graph: &Graph, given: &[bool]) -> Result<(), Fault> {
    if graph.outputs.is_empty() {
        return Err(Fault::NoOutput);
    }
    let mut seen = HashSet::new();
    for &id in &graph.outputs {
        check_id(graph, id)?;
        if !seen.insert(id) {
            return Err(Fault::GivenTwice(graph.value(id).name.clone()));
        }
    }
    let never = given.iter().position(|&given| !given);
    never.map_or(Ok(()), |index| Err(Fault::Never(graph.values[index].name.clone())))
}

fn check_node(
    graph: &Graph,
    node: &Node,
    tensor: &dyn Fn(&str) -> Option<TensorFacts>,
) -> Result<(), Fault> {
    let ranks: Vec<usize> = node.inputs.iter().map(|&id| graph.value(id).shape.len()).collect();
    check_operands(&node.op, &ranks)?;
    let dtypes: Vec<DType> = node.inputs.iter().map(|&id| graph.value(id).dtype).collect();
    check_dtypes(&node.op, &dtypes, graph.value(node.output).dtype)?;
    check_parameters(&node.op)?;
    for need in tensor_needs(graph, node)? {
        let name = || short(need.name);
        let facts = tensor(need.name).ok_or_else(|| Fault::NoTensor(name()))?;
        if facts.dtype != need.dtype {
            let (expected, actual) = (need.dtype, facts.dtype);
            return Err(Fault::TensorType { tensor: name(), expected, actual });
        }
        if facts.elements as u64 != need.elements {
            let (expected, actual) = (need.elements, facts.elements as u64);
            return Err(Fault::TensorSize { tensor: name(), expected, actual });
        }
    }
    Ok(())
}
