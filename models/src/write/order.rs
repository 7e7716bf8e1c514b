//! The order in which networks read their tensors.

use std::collections::HashSet;

use plantain::graph::{Fault, Graph, tensor_needs};

/// Names of all tensors that the networks read, each once, where it is first read.
///
/// # Errors
/// [`Fault`] of the first node whose tensors cannot be told.
pub fn execution_order<'g>(
    graphs: impl IntoIterator<Item = &'g Graph>,
) -> Result<Vec<&'g str>, Fault> {
    let mut seen = HashSet::new();
    let mut order = Vec::new();
    for graph in graphs {
        for node in &graph.nodes {
            let names = tensor_needs(graph, node)?.into_iter().map(|need| need.name);
            order.extend(names.filter(|&name| seen.insert(name)));
        }
    }
    Ok(order)
}
