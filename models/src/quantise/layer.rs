//! The layers that int8 is for: matmuls and convolutions of stored weights.

use plantain::graph::{Epilogue, Graph, Op, Weight, Window};

/// A matmul or convolution of the float form.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// Index of its node.
    pub node: usize,
    /// Name of the node.
    pub name: &'a str,
    /// Its weights.
    pub weight: &'a Weight,
    /// Outputs.
    pub n: usize,
    /// Inputs of one tap.
    pub c: usize,
    /// Window; `None` for a matmul.
    pub window: Option<&'a Window>,
    /// What follows the product.
    pub epilogue: &'a Epilogue,
}

impl<'a> Layer<'a> {
    /// The layer at a node, if it is one.
    pub fn at(graph: &'a Graph, node: usize) -> Option<Self> {
        let name = graph.nodes[node].name.as_str();
        match &graph.nodes[node].op {
            Op::MatmulF16 { weight, k, n, epilogue } => Some(Layer {
                node,
                name,
                weight,
                n: *n as usize,
                c: *k as usize,
                window: None,
                epilogue,
            }),
            Op::ConvF16 { weight, c, n, window, epilogue } => Some(Layer {
                node,
                name,
                weight,
                n: *n as usize,
                c: *c as usize,
                window: Some(window),
                epilogue,
            }),
            _ => None,
        }
    }

    /// All layers, in execution order.
    pub fn all(graph: &'a Graph) -> Vec<Self> {
        (0..graph.nodes.len()).filter_map(|node| Layer::at(graph, node)).collect()
    }

    /// Rows, columns of the kernel.
    pub fn kernel(&self) -> [usize; 2] {
        self.window.map_or([1, 1], |window| window.kernel.map(|side| side as usize))
    }

    /// Weights.
    pub fn len(&self) -> usize {
        self.n * self.products()
    }

    /// Whether it has no weights.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Products that one output sums.
    pub fn products(&self) -> usize {
        self.kernel()[0] * self.kernel()[1] * self.c
    }
}
