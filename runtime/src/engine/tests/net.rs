//! Graphs that are built with their expected values beside them.

use half::f16;

use super::functions;
use super::naive::{self, Full};
use crate::engine::MemoryWeights;
use crate::graph::{
    DType, Dim, Epilogue, Graph, InputScale, Node, Op, Unary, Value, ValueId, Weight, Window,
};
use crate::pack::panel::{PanelShape, pack_f16};

/// A graph, its weights, its inputs and what every value should be.
pub struct Net {
    pub graph: Graph,
    pub weights: MemoryWeights,
    pub expected: Vec<Full>,
    /// Default type of new values.
    pub dtype: DType,
    state: u64,
}

/// What follows a product: activation, residual.
pub type Tail = (Option<Unary>, Option<ValueId>);

impl Net {
    pub fn new(seed: u64) -> Self {
        let graph = Graph {
            name: "net".to_owned(),
            values: Vec::new(),
            nodes: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        let weights = MemoryWeights::new();
        Net { graph, weights, expected: Vec::new(), dtype: DType::F16, state: seed * 2 + 1 }
    }

    /// Pseudo-random, `-1..1`.
    pub fn random(&mut self) -> f32 {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        ((self.random() + 1.0) / 2.0 * limit as f32) as usize % limit
    }

    fn randoms(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.random()).collect()
    }

    fn value(&mut self, full: Full, dtype: DType) -> ValueId {
        let id = ValueId(self.graph.values.len() as u32);
        self.graph.values.push(Value {
            name: format!("v{}", id.0),
            shape: full.shape.iter().map(|&n| Dim::fixed(n)).collect(),
            dtype,
        });
        let data = full.data.iter().map(|&x| match dtype {
            DType::F16 => f16::from_f32(x).to_f32(),
            _ => x,
        });
        self.expected.push(Full::new(&full.shape, data.collect()));
        id
    }

    pub fn full(&self, id: ValueId) -> &Full {
        &self.expected[id.index()]
    }

    pub fn shape(&self, id: ValueId) -> Vec<usize> {
        self.full(id).shape.clone()
    }

    pub fn input(&mut self, shape: &[usize], dtype: DType) -> ValueId {
        let data = self.randoms(shape.iter().product());
        let id = self.value(Full::new(shape, data), dtype);
        self.graph.inputs.push(id);
        id
    }

    pub fn ids(&mut self, shape: &[usize], rows: usize) -> ValueId {
        let count = shape.iter().product();
        let data = (0..count).map(|_| self.below(rows) as f32).collect();
        let id = self.value(Full::new(shape, data), DType::I32);
        self.graph.inputs.push(id);
        id
    }

    pub fn output(&mut self, id: ValueId) {
        self.graph.outputs.push(id);
    }

    pub fn push(&mut self, op: Op, inputs: &[ValueId], result: Full) -> ValueId {
        self.push_as(op, inputs, result, self.dtype)
    }

    fn push_as(&mut self, op: Op, inputs: &[ValueId], result: Full, dtype: DType) -> ValueId {
        let output = self.value(result, dtype);
        let name = format!("n{}", self.graph.nodes.len());
        self.graph.nodes.push(Node { name, op, inputs: inputs.to_vec(), output });
        output
    }

    pub fn plain(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        self.plain_to(op, inputs, None)
    }

    pub fn plain_to(&mut self, op: Op, inputs: &[ValueId], shape: Option<&[usize]>) -> ValueId {
        let fulls: Vec<&Full> = inputs.iter().map(|&id| self.full(id)).collect();
        let result = naive::plain(&op, &fulls, shape);
        let moved = matches!(
            op,
            Op::Reshape | Op::Concat { .. } | Op::Slice { .. } | Op::Transpose { .. } | Op::Expand
        );
        let dtype = if moved { self.graph.value(inputs[0]).dtype } else { self.dtype };
        self.push_as(op, inputs, result, dtype)
    }

    pub fn unary(&mut self, function: Unary, x: ValueId) -> ValueId {
        self.plain(Op::Unary { function }, &[x])
    }

    pub fn constant(&mut self, shape: &[usize]) -> ValueId {
        let data = self.randoms(shape.iter().product());
        let name = self.tensor(&data);
        self.push_as(Op::Constant { tensor: name }, &[], Full::new(shape, data), DType::F32)
    }

    fn name(&self) -> String {
        format!("t{}", self.weights.len())
    }

    pub fn tensor<T: bytemuck::NoUninit>(&mut self, values: &[T]) -> String {
        let name = self.name();
        self.weights.insert(&name, values);
        name
    }

    pub fn floats(&mut self, count: usize) -> (String, Vec<f32>) {
        let values = self.randoms(count);
        (self.tensor(&values), values)
    }

    pub fn halves(&mut self, count: usize) -> (String, Vec<f32>) {
        let values: Vec<f16> = self.randoms(count).into_iter().map(f16::from_f32).collect();
        (self.tensor(&values), values.iter().map(|x| x.to_f32()).collect())
    }

    /// An int8 weight and the floats that it stands for.
    fn int8(&mut self, shape: PanelShape) -> (Weight, Vec<f32>, Vec<f32>) {
        let k = shape.kernel_rows * shape.kernel_columns * shape.channels;
        let raw: Vec<i8> =
            self.randoms(shape.outputs * k).iter().map(|x| (x * 127.0) as i8).collect();
        let scale: Vec<f32> =
            (0..shape.outputs).map(|_| (self.random() + 1.5) / 127.0 / (k as f32).sqrt()).collect();
        let bias = self.randoms(shape.outputs);
        let panels = shape.pack_i8(&raw);
        let sums = shape.sums(&panels);
        let floats = raw.iter().enumerate().map(|(i, &w)| f32::from(w) * scale[i / k]).collect();
        let weight = Weight {
            panels: self.tensor(&panels),
            scale: Some(self.tensor(&scale)),
            sums: Some(self.tensor(&sums)),
            bias: Some(self.tensor(&bias)),
        };
        (weight, floats, bias)
    }

    fn half(&mut self, n: usize, k: usize) -> (Weight, Vec<f32>) {
        let shrink = 1.0 / (k as f32).sqrt();
        let raw: Vec<f16> =
            self.randoms(n * k).into_iter().map(|x| f16::from_f32(x * shrink)).collect();
        let panels = self.tensor(&pack_f16(n, k, &raw));
        let weight = Weight { panels, scale: None, sums: None, bias: None };
        (weight, raw.iter().map(|x| x.to_f32()).collect())
    }

    fn finish(
        &mut self,
        x: ValueId,
        mut result: Full,
        tail: Tail,
        op: impl FnOnce(Epilogue) -> Op,
    ) -> ValueId {
        let (activation, residual) = tail;
        for (index, value) in result.data.iter_mut().enumerate() {
            let active = activation.map_or(*value, |function| functions::unary(function, *value));
            *value = active + residual.map_or(0.0, |id| self.expected[id.index()].data[index]);
        }
        let op = op(Epilogue { activation, residual: residual.is_some() });
        let inputs: Vec<ValueId> = [x].into_iter().chain(residual).collect();
        self.push(op, &inputs, result)
    }

    pub fn conv_i8(
        &mut self,
        x: ValueId,
        n: usize,
        window: Window,
        input_scale: InputScale,
        tail: Tail,
    ) -> ValueId {
        let c = self.full(x).shape[3];
        let [kernel_rows, kernel_columns] = window.kernel.map(|k| k as usize);
        let shape = PanelShape { outputs: n, kernel_rows, kernel_columns, channels: c };
        let (weight, floats, bias) = self.int8(shape);
        let result = naive::conv(self.full(x), &floats, Some(&bias), n, &window, Some(input_scale));
        let (c, n) = (c as u32, n as u32);
        self.finish(x, result, tail, |epilogue| Op::ConvI8 {
            weight,
            c,
            n,
            window,
            input_scale,
            epilogue,
        })
    }

    pub fn conv_f16(&mut self, x: ValueId, n: usize, window: Window, tail: Tail) -> ValueId {
        let c = self.full(x).shape[3];
        let (weight, floats) = self.half(n, c * window.kernel.iter().product::<u32>() as usize);
        let result = naive::conv(self.full(x), &floats, None, n, &window, None);
        let (c, n) = (c as u32, n as u32);
        self.finish(x, result, tail, |epilogue| Op::ConvF16 { weight, c, n, window, epilogue })
    }

    pub fn depthwise(&mut self, x: ValueId, window: Window, tail: Tail) -> ValueId {
        let c = self.full(x).shape[3];
        let taps = window.kernel.iter().product::<u32>() as usize;
        let (weight, floats) = self.halves(taps * c);
        let (bias, biases) = self.floats(c);
        let result = naive::depthwise(self.full(x), &floats, Some(&biases), &window);
        self.finish(x, result, tail, |epilogue| Op::Depthwise {
            weight,
            bias: Some(bias),
            window,
            epilogue,
        })
    }

    pub fn matmul_i8(&mut self, x: ValueId, n: usize, tail: Tail) -> ValueId {
        let k = *self.full(x).shape.last().unwrap();
        let (weight, floats, bias) = self.int8(PanelShape::matmul(n, k));
        let result = naive::matmul(self.full(x), &floats, Some(&bias), n, true);
        let (k, n) = (k as u32, n as u32);
        self.finish(x, result, tail, |epilogue| Op::MatmulI8 { weight, k, n, epilogue })
    }

    pub fn matmul_f16(&mut self, x: ValueId, n: usize, tail: Tail) -> ValueId {
        let k = *self.full(x).shape.last().unwrap();
        let (weight, floats) = self.half(n, k);
        let result = naive::matmul(self.full(x), &floats, None, n, false);
        let (k, n) = (k as u32, n as u32);
        self.finish(x, result, tail, |epilogue| Op::MatmulF16 { weight, k, n, epilogue })
    }

    pub fn layer_norm(&mut self, x: ValueId) -> ValueId {
        let c = *self.full(x).shape.last().unwrap();
        let ((gamma, g), (beta, b)) = (self.floats(c), self.floats(c));
        let result = naive::cell_norm(self.full(x), c, &g, Some(&b), 1e-5);
        self.push(Op::LayerNorm { eps: 1e-5, gamma, beta: Some(beta) }, &[x], result)
    }

    pub fn rms_norm(&mut self, x: ValueId, size: usize) -> ValueId {
        let (gamma, g) = self.floats(size);
        let result = naive::cell_norm(self.full(x), size, &g, None, 1e-6);
        self.push(Op::RmsNorm { eps: 1e-6, size: size as u32, gamma }, &[x], result)
    }

    pub fn group_norm(&mut self, x: ValueId, groups: usize, activation: Option<Unary>) -> ValueId {
        let c = *self.full(x).shape.last().unwrap();
        let ((gamma, g), (beta, b)) = (self.floats(c), self.floats(c));
        let result = naive::group_norm(self.full(x), groups, &g, &b, 1e-5, activation);
        let groups = groups as u32;
        self.push(Op::GroupNorm { groups, eps: 1e-5, gamma, beta, activation }, &[x], result)
    }

    pub fn attention(&mut self, inputs: &[ValueId], heads: usize, causal: bool) -> ValueId {
        let scale = 0.3;
        let fulls: Vec<&Full> = inputs.iter().map(|&id| self.full(id)).collect();
        let result = naive::attention(&fulls, heads, scale, causal);
        self.push(Op::Attention { heads: heads as u32, scale, causal }, inputs, result)
    }

    pub fn attention_i8(&mut self, inputs: &[ValueId], heads: usize, causal: bool) -> ValueId {
        let scale = 0.3;
        let fulls: Vec<&Full> = inputs.iter().map(|&id| self.full(id)).collect();
        let result = naive::attention(&fulls, heads, scale, causal);
        self.push(Op::AttentionI8 { heads: heads as u32, scale, causal }, inputs, result)
    }
}

/// A square window with this padding on all sides.
pub fn window(kernel: u32, stride: u32, pad: u32) -> Window {
    Window { kernel: [kernel; 2], stride: [stride; 2], pad: [pad; 4] }
}
