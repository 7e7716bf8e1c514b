//! Which tensors of the pack a node reads, with the type and size that its kernel takes for granted.

use super::{DType, Dim, Fault, Graph, Node, Op, Weight};
use crate::pack::TensorType;

/// A tensor that a node reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorNeed<'g> {
    /// Its name in the pack.
    pub name: &'g str,
    /// Its stored type.
    pub dtype: TensorType,
    /// Its values.
    pub elements: u64,
}

/// What the pack holds under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorFacts {
    /// Its stored type.
    pub dtype: TensorType,
    /// Its values.
    pub elements: usize,
}

/// The tensors of a node, in the order in which its kernel reads them: panels, scale, sums, bias.
///
/// # Errors
/// [`Fault`] if a size that they depend on is not fixed, or a weight names what it must not.
///
/// # Panics
/// If the node's operands are not as [`super::validate`] wants them.
pub fn tensor_needs<'g>(graph: &'g Graph, node: &'g Node) -> Result<Vec<TensorNeed<'g>>, Fault> {
    let need = |name: &'g str, dtype, elements| TensorNeed { name, dtype, elements };
    let channels = || channels(graph, node.inputs[0].index(), "number of channels");
    Ok(match &node.op {
        Op::Constant { tensor } => {
            let value = graph.value(node.output);
            let dtype = match value.dtype {
                DType::F32 => TensorType::F32,
                DType::F16 => TensorType::F16,
                DType::I32 => TensorType::I32,
            };
            let elements = value
                .shape
                .iter()
                .try_fold(1u64, |count, dim| count.checked_mul(fixed(dim)?))
                .ok_or(Fault::NotFixed("shape"))?;
            vec![need(tensor, dtype, elements)]
        }
        Op::MatmulI8 { weight, k, n, .. } => int8(weight, 1, u64::from(*k), u64::from(*n))?,
        Op::MatmulF16 { weight, k, n, .. } => half(weight, u64::from(*k), u64::from(*n))?,
        Op::ConvI8 { weight, c, n, window, .. } => {
            let columns = u64::from(window.kernel[1]);
            let row = columns * u64::from(*c).next_multiple_of(4);
            int8(weight, u64::from(window.kernel[0]), row, u64::from(*n))?
        }
        Op::ConvF16 { weight, c, n, window, .. } => {
            let taps = u64::from(window.kernel[0]) * u64::from(window.kernel[1]);
            half(weight, taps * u64::from(*c), u64::from(*n))?
        }
        Op::Depthwise { weight, bias, window, .. } => {
            let c = channels()?;
            let taps = u64::from(window.kernel[0]) * u64::from(window.kernel[1]);
            let mut needs = vec![need(weight, TensorType::F16, taps * c)];
            needs.extend(bias.as_deref().map(|bias| need(bias, TensorType::F32, c)));
            needs
        }
        Op::LayerNorm { gamma, beta, .. } => {
            let c = channels()?;
            let mut needs = vec![need(gamma, TensorType::F32, c)];
            needs.extend(beta.as_deref().map(|beta| need(beta, TensorType::F32, c)));
            needs
        }
        Op::RmsNorm { gamma, size, .. } => vec![need(gamma, TensorType::F32, u64::from(*size))],
        Op::GroupNorm { gamma, beta, .. } => {
            let c = channels()?;
            vec![need(gamma, TensorType::F32, c), need(beta, TensorType::F32, c)]
        }
        Op::Gather { table, scale, rows } => {
            let c = self::channels(graph, node.output.index(), "output's last dimension")?;
            let elements = u64::from(*rows) * c;
            match scale {
                Some(scale) => vec![
                    need(table, TensorType::I8, elements),
                    need(scale, TensorType::F32, u64::from(*rows)),
                ],
                None => vec![need(table, TensorType::F16, elements)],
            }
        }
        Op::TimestepEmbedding { frequencies, .. } => {
            let c = self::channels(graph, node.output.index(), "output's last dimension")?;
            if c % 2 != 0 {
                let what = "output's last dimension";
                return Err(Fault::Divides { what, actual: c, divisor: 2 });
            }
            vec![need(frequencies, TensorType::F32, c / 2)]
        }
        _ => Vec::new(),
    })
}

/// A dimension's value if it is fixed and within limits.
fn fixed(dim: &Dim) -> Option<u64> {
    dim.as_fixed().map(|dim| dim as u64).filter(|&dim| (1..=Dim::MAX as u64).contains(&dim))
}

fn channels(graph: &Graph, value: usize, what: &'static str) -> Result<u64, Fault> {
    graph.values[value].shape.last().and_then(fixed).ok_or(Fault::NotFixed(what))
}

/// An int8 weight: `rows` kernel rows of `k` inputs each, padded.
fn int8(weight: &Weight, rows: u64, k: u64, n: u64) -> Result<Vec<TensorNeed<'_>>, Fault> {
    let form = |problem| Fault::WeightForm { problem };
    let padded = n.next_multiple_of(16);
    let scale = weight.scale.as_deref().ok_or(form("is int8 but names no scale"))?;
    let sums = weight.sums.as_deref().ok_or(form("is int8 but names no sums"))?;
    let elements = padded * rows * k.next_multiple_of(4);
    let mut needs = vec![
        TensorNeed { name: &weight.panels, dtype: TensorType::I8, elements },
        TensorNeed { name: scale, dtype: TensorType::F32, elements: n },
        TensorNeed { name: sums, dtype: TensorType::I32, elements: rows * padded },
    ];
    needs.extend(bias(weight, n));
    Ok(needs)
}

fn half(weight: &Weight, k: u64, n: u64) -> Result<Vec<TensorNeed<'_>>, Fault> {
    if weight.scale.is_some() || weight.sums.is_some() {
        return Err(Fault::WeightForm { problem: "is f16 but names a scale or sums" });
    }
    let elements = n.next_multiple_of(16).saturating_mul(k);
    let mut needs = vec![TensorNeed { name: &weight.panels, dtype: TensorType::F16, elements }];
    needs.extend(bias(weight, n));
    Ok(needs)
}

fn bias(weight: &Weight, n: u64) -> Option<TensorNeed<'_>> {
    let name = weight.bias.as_deref()?;
    Some(TensorNeed { name, dtype: TensorType::F32, elements: n })
}
