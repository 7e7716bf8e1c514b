//! The ops that a pack may hold.
//!
//! Layout: images are `[batch, height, width, channels]`, sequences `[batch, tokens, channels]`,
//! both row-major with channels innermost. A *row* is everything below the second-innermost
//! spatial dimension: one image row (`width * channels` values) or one token (`channels` values).
//! Tensors that an op needs are named; the pack holds them under that name.

use serde::{Deserialize, Serialize};

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unary {
    /// `max(x, 0)`. ONNX Relu.
    Relu,
    /// `x < 0 ? alpha * x : x`. ONNX LeakyRelu.
    LeakyRelu(f32),
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `x / 2 * (1 + erf(x / sqrt 2))`. ONNX Gelu, approximate = none.
    Gelu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`. ONNX Gelu, approximate = tanh.
    GeluTanh,
    /// `x * sigmoid(1.702 x)`, CLIP's activation.
    QuickGelu,
    /// `1 / (1 + exp(-x))`. ONNX Sigmoid.
    Sigmoid,
    /// ONNX Tanh.
    Tanh,
    /// ONNX Exp.
    Exp,
    /// ONNX Erf.
    Erf,
    /// ONNX Sqrt.
    Sqrt,
    /// `1 / sqrt(x)`.
    Rsqrt,
    /// `1 / x`. ONNX Reciprocal.
    Reciprocal,
    /// ONNX Sin.
    Sin,
    /// ONNX Cos.
    Cos,
    /// ONNX Neg.
    Neg,
    /// ONNX Abs.
    Abs,
    /// `x * x`.
    Square,
    /// `scale * x + shift`, one fused multiply-add.
    Affine {
        /// Factor.
        scale: f32,
        /// Summand.
        shift: f32,
    },
    /// ONNX Clip.
    Clamp {
        /// Lower bound.
        min: f32,
        /// Upper bound.
        max: f32,
    },
}

/// A function of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// The smaller.
    Min,
    /// The larger.
    Max,
}

/// Where the scale of a convolution's int8 input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputScale {
    /// `max |x| / 127` of each image row, found while it runs; the kernel rows accumulate apart.
    Row,
    /// One scale for the whole tensor, calibrated by the packer.
    Static(f32),
}

/// How [`Op::Resize`] finds values between cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMode {
    /// ONNX Resize, mode nearest, asymmetric, floor: cell `y / factor`.
    Nearest,
    /// ONNX Resize, mode linear, half_pixel.
    Bilinear,
}

/// Channel order of [`Op::PixelShuffle`] and its inverse. ONNX DepthToSpace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShuffleOrder {
    /// Channel `c * r * r + dy * r + dx`: ONNX mode CRD, PyTorch's pixel_shuffle.
    ChannelFirst,
    /// Channel `(dy * r + dx) * channels + c`: ONNX mode DCR.
    BlockFirst,
}

/// What a [`Op::Pool`] window yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolKind {
    /// Mean over the cells inside the image.
    Average,
    /// Maximum.
    Max,
}

/// Sizes of a convolution or pooling window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Rows, columns of the window.
    pub kernel: [u32; 2],
    /// Step down, step right.
    pub stride: [u32; 2],
    /// Cells of zeros: top, left, bottom, right.
    pub pad: [u32; 4],
}

impl Window {
    /// True if the window is the cell itself, so that a convolution is a matrix product.
    pub fn is_one_cell(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.pad == [0; 4]
    }
}

/// A weight matrix `[outputs, inputs]` in kernel layout with what its epilogue needs.
///
/// The int8 form (see [`crate::pack::panel`]) comes with one f32 scale and one i32 weight sum per
/// output (and per kernel row, for convolutions); the f16 form has neither.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weight {
    /// Panels: i8 `[ceil(n/16), k_groups, 16, 4]` or f16 `[ceil(n/16), k, 16]`.
    pub panels: String,
    /// f32 `[n]`; int8 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<String>,
    /// i32 `[kernel_rows, ceil(n/16) * 16]`; sums over the weights of each output; int8 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sums: Option<String>,
    /// f32 `[n]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<String>,
}

/// What happens to a result before it is stored, in this order: `activation(acc + bias)`, then
/// `+ residual` (the node's last input, same shape as the output) if `residual` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Epilogue {
    /// Applied to every value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Unary>,
    /// Adds the node's last input.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub residual: bool,
}

/// One op. Inputs are named in the order in which the node lists them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// A stored tensor, f32, f16 or i32, as a value. No inputs.
    Constant {
        /// Its name; the stored type is the value's type.
        tensor: String,
    },
    /// `x [.., k] -> [.., n]`, or `x, residual`. x is quantised per row of `k`, symmetric int8.
    MatmulI8 {
        /// `[n, k]`, one kernel row.
        weight: Weight,
        /// Inputs.
        k: u32,
        /// Outputs.
        n: u32,
        /// See [`Epilogue`].
        #[serde(flatten)]
        epilogue: Epilogue,
    },
    /// As [`Op::MatmulI8`], with f16 weights and f32 accumulation.
    MatmulF16 {
        /// `[n, k]`.
        weight: Weight,
        /// Inputs.
        k: u32,
        /// Outputs.
        n: u32,
        /// See [`Epilogue`].
        #[serde(flatten)]
        epilogue: Epilogue,
    },
    /// `x [b, h, w, c] -> [b, h', w', n]`, or `x, residual`. k runs over kernel row, kernel column,
    /// channel; channels are padded with zeros to a multiple of 4.
    ConvI8 {
        /// `[n, kernel_rows, kernel_columns, c]`.
        weight: Weight,
        /// Channels in.
        c: u32,
        /// Channels out.
        n: u32,
        /// Kernel, stride, pad.
        #[serde(flatten)]
        window: Window,
        /// Scale of x.
        input_scale: InputScale,
        /// See [`Epilogue`].
        #[serde(flatten)]
        epilogue: Epilogue,
    },
    /// As [`Op::ConvI8`], with f16 weights (k is not padded) and f32 accumulation.
    ConvF16 {
        /// `[n, kernel_rows, kernel_columns, c]`.
        weight: Weight,
        /// Channels in.
        c: u32,
        /// Channels out.
        n: u32,
        /// Kernel, stride, pad.
        #[serde(flatten)]
        window: Window,
        /// See [`Epilogue`].
        #[serde(flatten)]
        epilogue: Epilogue,
    },
    /// Depthwise convolution, `x [b, h, w, c] -> [b, h', w', c]`, f16 weights
    /// `[kernel_rows, kernel_columns, c]`, bias f32 `[c]`.
    Depthwise {
        /// Name of the weights.
        weight: String,
        /// Name of the bias.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bias: Option<String>,
        /// Kernel, stride, pad.
        #[serde(flatten)]
        window: Window,
        /// See [`Epilogue`].
        #[serde(flatten)]
        epilogue: Epilogue,
    },
    /// `a [.., m, k], b [.., k, n] -> [.., m, n]` of two computed values, in f32.
    BatchMatmul {
        /// b is `[.., n, k]`.
        transpose_b: bool,
    },
    /// `softmax(scale * q k^T + mask) v` by heads: `q [b, m, heads * d]`, `k, v [b, t, heads * d]`,
    /// optional `mask` (additive, f32, `[b or 1, m or 1, t]`) -> `[b, m, heads * d]`. Tiled over keys
    /// with an online softmax; the score matrix never exists.
    Attention {
        /// Heads.
        heads: u32,
        /// Factor on the scores.
        scale: f32,
        /// Key `j` is seen by query `i` only if `j <= i`.
        causal: bool,
    },
    /// As [`Op::Attention`], with both products in int8: see [`crate::kernel::AttentionI8`]. Packs that hold one have
    /// format version 2.
    AttentionI8 {
        /// Heads.
        heads: u32,
        /// Factor on the scores.
        scale: f32,
        /// Key `j` is seen by query `i` only if `j <= i`.
        causal: bool,
    },
    /// `(x - mean) / sqrt(var + eps) * gamma + beta` over the last dimension. ONNX LayerNormalization.
    LayerNorm {
        /// Inside the root.
        eps: f32,
        /// f32 `[c]`.
        gamma: String,
        /// f32 `[c]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        beta: Option<String>,
    },
    /// `x / sqrt(mean(x^2) + eps) * gamma` over each run of `size` values of the last dimension.
    RmsNorm {
        /// Inside the root.
        eps: f32,
        /// Values that are normed together: the channels, or one head's.
        size: u32,
        /// f32 `[size]`.
        gamma: String,
    },
    /// Over each group of channels and all cells of a sample, `x [b, h, w, c]` or `[b, t, c]`, then
    /// gamma, beta by channel, then the activation. ONNX GroupNormalization.
    GroupNorm {
        /// Groups of channels.
        groups: u32,
        /// Inside the root.
        eps: f32,
        /// f32 `[c]`.
        gamma: String,
        /// f32 `[c]`.
        beta: String,
        /// Applied last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        activation: Option<Unary>,
    },
    /// A function of each value.
    Unary {
        /// Which.
        function: Unary,
    },
    /// A function of two values with numpy's broadcasting (same rank; a dimension of 1 repeats).
    Binary {
        /// Which.
        function: Binary,
    },
    /// `x * (1 + scale) + shift`: `x [b, .., c], scale [b, .., c], shift [b, .., c]`, the last two broadcast.
    Modulate,
    /// `a * function(g)` with `a`, `g` the first and second half of x's last dimension. GEGLU, SwiGLU.
    Gated {
        /// Applied to the second half.
        function: Unary,
    },
    /// `x [b, h, w, c] -> [b, factor h, factor w, c]`.
    Resize {
        /// Whole factor down and right.
        factor: [u32; 2],
        /// Between cells.
        mode: ResizeMode,
    },
    /// `x [b, h, w, c r r] -> [b, h r, w r, c]`.
    PixelShuffle {
        /// r
        factor: u32,
        /// Channel order.
        order: ShuffleOrder,
    },
    /// `x [b, h r, w r, c] -> [b, h, w, c r r]`.
    PixelUnshuffle {
        /// r
        factor: u32,
        /// Channel order.
        order: ShuffleOrder,
    },
    /// Joins its inputs along an axis.
    Concat {
        /// Axis.
        axis: u32,
    },
    /// Takes a range of one axis; its length is the output's dimension.
    Slice {
        /// Axis.
        axis: u32,
        /// First index.
        start: super::Dim,
    },
    /// Reorders axes: output axis `i` is input axis `permutation[i]`.
    Transpose {
        /// A permutation.
        permutation: Vec<u32>,
    },
    /// The same values in the same order in the output's shape; costs nothing.
    Reshape,
    /// Repeats dimensions of 1 up to the output's shape. ONNX Expand.
    Expand,
    /// Adds cells of a value around `[b, h, w, c]`: top, left, bottom, right.
    Pad {
        /// Cells.
        pad: [u32; 4],
        /// Value.
        value: f32,
    },
    /// Over the last dimension.
    Softmax,
    /// Rows of a table: `ids` (i32) `[b, t] -> [b, t, c]`.
    Gather {
        /// `[rows, c]`: f16, or i8 with `scale`.
        table: String,
        /// f32 `[rows]`; int8 only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scale: Option<String>,
        /// Rows of the table; an id outside `0..rows` is refused when the prompt is tokenised.
        rows: u32,
    },
    /// `t [b] -> [b, 2 d]`: cosines and sines of `t * frequencies`.
    TimestepEmbedding {
        /// f32 `[d]`.
        frequencies: String,
        /// Sines first.
        sin_first: bool,
    },
    /// `x [b, h, w, c] -> [b, h', w', c]`.
    Pool {
        /// What a window yields.
        kind: PoolKind,
        /// Kernel, stride, pad.
        #[serde(flatten)]
        window: Window,
    },
    /// Mean over some axes, which stay with length 1. ONNX ReduceMean, keepdims.
    ReduceMean {
        /// Axes.
        axes: Vec<u32>,
    },
    /// Sum over some axes, which stay with length 1. ONNX ReduceSum, keepdims.
    ReduceSum {
        /// Axes.
        axes: Vec<u32>,
    },
    /// To the output value's type.
    Cast,
}

impl Op {
    /// The op's name as it stands in the pack's JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Constant { .. } => "constant",
            Op::MatmulI8 { .. } => "matmul_i8",
            Op::MatmulF16 { .. } => "matmul_f16",
            Op::ConvI8 { .. } => "conv_i8",
            Op::ConvF16 { .. } => "conv_f16",
            Op::Depthwise { .. } => "depthwise",
            Op::BatchMatmul { .. } => "batch_matmul",
            Op::Attention { .. } => "attention",
            Op::AttentionI8 { .. } => "attention_i8",
            Op::LayerNorm { .. } => "layer_norm",
            Op::RmsNorm { .. } => "rms_norm",
            Op::GroupNorm { .. } => "group_norm",
            Op::Unary { .. } => "unary",
            Op::Binary { .. } => "binary",
            Op::Modulate => "modulate",
            Op::Gated { .. } => "gated",
            Op::Resize { .. } => "resize",
            Op::PixelShuffle { .. } => "pixel_shuffle",
            Op::PixelUnshuffle { .. } => "pixel_unshuffle",
            Op::Concat { .. } => "concat",
            Op::Slice { .. } => "slice",
            Op::Transpose { .. } => "transpose",
            Op::Reshape => "reshape",
            Op::Expand => "expand",
            Op::Pad { .. } => "pad",
            Op::Softmax => "softmax",
            Op::Gather { .. } => "gather",
            Op::TimestepEmbedding { .. } => "timestep_embedding",
            Op::Pool { .. } => "pool",
            Op::ReduceMean { .. } => "reduce_mean",
            Op::ReduceSum { .. } => "reduce_sum",
            Op::Cast => "cast",
        }
    }
}
