//! Functions of single values and of pairs.

use plantain::graph::{Binary, Unary};

use super::{Array, Call, EvaluateError};

/// A function of one value.
pub(crate) fn unary(function: Unary, x: f32) -> f32 {
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    match function {
        Unary::Relu => x.max(0.0),
        Unary::LeakyRelu(alpha) => {
            if x < 0.0 {
                alpha * x
            } else {
                x
            }
        }
        Unary::Silu => x * sigmoid(x),
        Unary::Gelu => 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2)),
        Unary::GeluTanh => {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Unary::QuickGelu => x * sigmoid(1.702 * x),
        Unary::Sigmoid => sigmoid(x),
        Unary::Tanh => x.tanh(),
        Unary::Exp => x.exp(),
        Unary::Erf => libm::erff(x),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Square => x * x,
        Unary::Affine { scale, shift } => scale.mul_add(x, shift),
        Unary::Clamp { min, max } => x.max(min).min(max),
    }
}

fn pair(function: Binary, a: f32, b: f32) -> f32 {
    match function {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
    }
}

/// Index into a broadcast operand for every index of the output, in order.
pub(super) fn broadcast_indices(from: &[usize], to: &[usize]) -> Option<Vec<usize>> {
    let rank = to.len();
    if from.len() != rank || from.iter().zip(to).any(|(&f, &t)| f != t && f != 1) {
        return None;
    }
    let mut strides = vec![0; rank];
    let mut stride = 1;
    for axis in (0..rank).rev() {
        strides[axis] = if from[axis] == 1 { 0 } else { stride };
        stride *= from[axis];
    }
    let mut indices = vec![0usize];
    for axis in 0..rank {
        let steps = (0..to[axis]).map(|i| i * strides[axis]);
        indices = indices.iter().flat_map(|&base| steps.clone().map(move |s| base + s)).collect();
    }
    Some(indices)
}

impl Call<'_> {
    fn broadcast(&self, operand: &Array) -> Result<Vec<usize>, EvaluateError> {
        broadcast_indices(&operand.shape, self.shape).ok_or_else(|| self.operands())
    }

    pub(super) fn binary(&self, function: Binary) -> Result<Array, EvaluateError> {
        let (a, b) = (self.inputs[0], self.inputs[1]);
        let (ia, ib) = (self.broadcast(a)?, self.broadcast(b)?);
        let values = ia.iter().zip(&ib).map(|(&i, &j)| pair(function, a.values[i], b.values[j]));
        Ok(Array { shape: self.shape.to_vec(), values: values.collect() })
    }

    pub(super) fn modulate(&self) -> Result<Array, EvaluateError> {
        let (x, scale, shift) = (self.inputs[0], self.inputs[1], self.inputs[2]);
        self.require(x.shape == self.shape)?;
        let rank = x.shape.len();
        let lift = |operand: &Array| {
            // `[b, c]` modulates `[b, .., c]`: ones go between.
            let mut shape = operand.shape.clone();
            while shape.len() < rank && !shape.is_empty() {
                shape.insert(1, 1);
            }
            Array { shape, values: operand.values.clone() }
        };
        let (scale, shift) = (lift(scale), lift(shift));
        let (i, j) = (self.broadcast(&scale)?, self.broadcast(&shift)?);
        let values = x
            .values
            .iter()
            .zip(i.iter().zip(&j))
            .map(|(&x, (&i, &j))| x * (1.0 + scale.values[i]) + shift.values[j]);
        Ok(Array { shape: x.shape.clone(), values: values.collect() })
    }

    pub(super) fn gated(&self, function: Unary) -> Result<Array, EvaluateError> {
        let x = self.inputs[0];
        let c = x.channels();
        self.require(c >= 2 && c.is_multiple_of(2))?;
        let values = x
            .values
            .chunks(c)
            .flat_map(|row| (0..c / 2).map(|i| row[i] * unary(function, row[i + c / 2])))
            .collect();
        let mut shape = x.shape.clone();
        *shape.last_mut().expect("c is its last dimension") = c / 2;
        Ok(Array { shape, values })
    }
}
