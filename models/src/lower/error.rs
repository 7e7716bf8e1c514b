//! Why a network cannot be lowered.

/// Names the node, what stops it, and the nearest thing that works.
#[derive(Debug, thiserror::Error)]
pub enum LowerError {
    /// An op, or a form of it, that plantain does not have.
    #[error("node {node:?}: {what} is not supported; {instead}")]
    Unsupported {
        /// Of the imported model.
        node: String,
        /// The op or its form.
        what: String,
        /// The nearest thing that works.
        instead: String,
    },
    /// A dimension that is not multilinear in batch, height and width.
    #[error(
        "node {node:?}: its shape {shape} does not follow batch, height and width; export the network with fixed sizes"
    )]
    Shape {
        /// Of the imported model.
        node: String,
        /// By binding.
        shape: String,
    },
    /// A constant that is different for different sizes.
    #[error(
        "node {node:?}: it holds a constant that changes with batch, height or width; export the network with fixed sizes"
    )]
    Varying {
        /// Of the imported model.
        node: String,
    },
}

impl LowerError {
    /// An unsupported op.
    pub(crate) fn unsupported(
        node: &str,
        what: impl Into<String>,
        instead: impl Into<String>,
    ) -> Self {
        LowerError::Unsupported {
            node: node.to_owned(),
            what: what.into(),
            instead: instead.into(),
        }
    }
}
