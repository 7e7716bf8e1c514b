//! Why an ONNX network cannot be imported.

use std::path::PathBuf;

/// Each says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file or its folder is missing or unreadable.
    #[error("cannot read {path}: {source}")]
    Read {
        /// What was opened.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are no ONNX model.
    #[error("{path} is not an ONNX model; export the network with torch.onnx.export")]
    NotOnnx {
        /// What was opened.
        path: PathBuf,
    },
    /// Weights in a file of their own that is not there or too short.
    #[error(
        "{path}: tensor {tensor:?} lies in {file}, which {problem}; copy that file beside the model"
    )]
    ExternalData {
        /// The model.
        path: PathBuf,
        /// The initializer.
        tensor: String,
        /// Where its bytes should be.
        file: PathBuf,
        /// Missing, or too short with both numbers.
        problem: String,
    },
    /// A dimension other than batch, height and width is free.
    #[error(
        "input {input:?}: dimension {axis} ({name:?}) is free; only batch, height and width may be: export it with a fixed size"
    )]
    FreeDimension {
        /// The graph's input.
        input: String,
        /// Which dimension.
        axis: usize,
        /// Its symbol, if it has one.
        name: String,
    },
    /// An op that is not known.
    #[error("node {node:?}: ONNX op {op} is not supported; {instead}")]
    UnknownOp {
        /// The node.
        node: String,
        /// Its op type.
        op: String,
        /// The nearest thing that works.
        instead: String,
    },
    /// tract refused the model.
    #[error("cannot import {path}: {message}")]
    Model {
        /// The model.
        path: PathBuf,
        /// Its innermost reasons.
        message: String,
    },
    /// No size was found at which the network's shapes fit together.
    #[error(
        "{path}: no height and width of {tried} give shapes that fit together ({message}); export the network with fixed sizes"
    )]
    Sizes {
        /// The model.
        path: PathBuf,
        /// Units that were tried.
        tried: String,
        /// The last reason.
        message: String,
    },
    /// The graph differs by size.
    #[error(
        "{path}: the network's graph changes with batch, height or width at node {node:?}; export it with fixed sizes"
    )]
    Structure {
        /// The model.
        path: PathBuf,
        /// Where two imports differ.
        node: String,
    },
    /// The reference run was given something that does not fit.
    #[error("reference run: {0}")]
    Reference(String),
}
