use std::collections::BTreeMap;

use plantain::graph::{
    Binding, DType, Dim, Epilogue, Graph, InputScale, Node, Op, Unary, Value, ValueId, Weight,
    Window,
};
use plantain::pack::panel::PanelShape;

use super::*;
use crate::evaluate::{Array, Evaluator, Precision, Values};
use crate::lower::{FloatTensor, FreeDims};
use crate::report::ErrorSums;

/// Nearly normal values, variance 1: sums of twelve uniform ones.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..len).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
}

/// Makes small networks of one input, x.
pub(crate) struct Builder {
    pub(crate) network: FloatNetwork,
}

impl Builder {
    pub(crate) fn new(name: &str, shape: &[usize]) -> Self {
        let graph = Graph {
            name: name.to_owned(),
            values: vec![value("x", shape)],
            nodes: Vec::new(),
            inputs: vec![ValueId(0)],
            outputs: Vec::new(),
        };
        let network = FloatNetwork {
            graph,
            weights: BTreeMap::new(),
            origins: BTreeMap::new(),
            free: FreeDims::default(),
            unit: 1,
            binding: ONE,
        };
        Builder { network }
    }

    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize], scale: f32) -> String {
        let len = shape.iter().product();
        let data = noise(self.network.weights.len() as u64 + 7, len);
        let data = data.into_iter().map(|x| x * scale).collect();
        self.network.weights.insert(name.to_owned(), FloatTensor::new(shape.to_vec(), data));
        name.to_owned()
    }

    pub(crate) fn node(&mut self, name: &str, op: Op, inputs: &[u32], shape: &[usize]) -> u32 {
        let output = ValueId(self.network.graph.values.len() as u32);
        self.network.graph.values.push(value(name, shape));
        let inputs = inputs.iter().map(|&id| ValueId(id)).collect();
        self.network.graph.nodes.push(Node { name: name.to_owned(), op, inputs, output });
        self.network.graph.outputs = vec![output];
        output.0
    }

    pub(crate) fn matmul(&mut self, name: &str, input: u32, n: usize, k: usize) -> u32 {
        let panels = self.tensor(&format!("{name}.w"), &[n, k], (k as f32).powf(-0.5));
        let bias = Some(self.tensor(&format!("{name}.b"), &[n], 0.1));
        let weight = Weight { panels, scale: None, sums: None, bias };
        let epilogue = Epilogue::default();
        let op = Op::MatmulF16 { weight, k: k as u32, n: n as u32, epilogue };
        self.node(name, op, &[input], &[1, 12, n])
    }

    fn norm(&mut self, name: &str, input: u32, c: usize) -> u32 {
        let gamma = self.tensor(&format!("{name}.g"), &[c], 0.1);
        self.network.weights.get_mut(&gamma).unwrap().data.iter_mut().for_each(|g| *g += 1.0);
        let beta = Some(self.tensor(&format!("{name}.beta"), &[c], 0.1));
        self.node(name, Op::LayerNorm { eps: 1e-5, gamma, beta }, &[input], &[1, 12, c])
    }
}

pub(crate) const ONE: Binding = Binding { batch: 1, height: 1, width: 1 };

fn value(name: &str, shape: &[usize]) -> Value {
    Value {
        name: name.to_owned(),
        shape: shape.iter().map(|&d| Dim::fixed(d)).collect(),
        dtype: DType::F32,
    }
}

/// One attention of four heads of 16 over so many keys.
fn attention(keys: usize) -> FloatNetwork {
    let mut b = Builder::new("attention", &[1, keys, 64]);
    let [q, k, v] = ["q", "k", "v"].map(|name| {
        let id = b.matmul(name, 0, 64, 64);
        b.network.graph.values[id as usize].shape[1] = Dim::fixed(keys);
        id
    });
    let op = Op::Attention { heads: 4, scale: 0.25, causal: false };
    b.node("attention", op, &[q, k, v], &[1, keys, 64]);
    b.network
}

/// A transformer's attention and gated feed-forward, 64 wide.
pub(crate) fn block() -> FloatNetwork {
    let mut b = Builder::new("block", &[1, 12, 64]);
    let normed = b.norm("norm1", 0, 64);
    let q = b.matmul("q", normed, 64, 64);
    let k = b.matmul("k", normed, 64, 64);
    let v = b.matmul("v", normed, 64, 64);
    let op = Op::Attention { heads: 4, scale: 0.25, causal: false };
    let attended = b.node("attention", op, &[q, k, v], &[1, 12, 64]);
    let out = b.matmul("out", attended, 64, 64);
    let add = Op::Binary { function: plantain::graph::Binary::Add };
    let x = b.node("add1", add.clone(), &[0, out], &[1, 12, 64]);
    let normed = b.norm("norm2", x, 64);
    let up = b.matmul("up", normed, 256, 64);
    let gated = b.node("gate", Op::Gated { function: Unary::Gelu }, &[up], &[1, 12, 128]);
    let down = b.matmul("down", gated, 64, 128);
    b.node("add2", add, &[x, down], &[1, 12, 64]);
    b.network
}

pub(crate) fn samples(shape: &[usize], count: u64) -> Samples {
    let len = shape.iter().product();
    let inputs = (0..count).map(|seed| {
        let array = Array { shape: shape.to_vec(), values: noise(100 + seed, len) };
        Inputs::from([("x".to_owned(), array)])
    });
    Samples { binding: ONE, inputs: inputs.collect() }
}

/// Multiplies two channels of both norms by 30 and divides what reads them.
fn with_outliers(mut network: FloatNetwork) -> FloatNetwork {
    for (norm, consumers) in [("norm1", &["q", "k", "v"][..]), ("norm2", &["up"][..])] {
        for channel in [5, 40] {
            for part in ["g", "beta"] {
                network.weights.get_mut(&format!("{norm}.{part}")).unwrap().data[channel] *= 30.0;
            }
            for consumer in consumers {
                let tensor = network.weights.get_mut(&format!("{consumer}.w")).unwrap();
                tensor.data.iter_mut().skip(channel).step_by(64).for_each(|w| *w /= 30.0);
            }
        }
    }
    network
}

fn outputs(network: &FloatNetwork, samples: &Samples) -> Vec<f32> {
    let evaluator = Evaluator::new(&network.graph, &network.weights, samples.binding);
    let run = |inputs: &Inputs| -> Values { evaluator.run(inputs, Precision::default()).unwrap() };
    let output = network.graph.outputs[0].index();
    samples.inputs.iter().flat_map(|i| run(i)[output].clone().unwrap().values).collect()
}

#[test]
fn a_block_keeps_its_direction_in_int8() {
    let quantised = quantise(block(), &samples(&[1, 12, 64], 4), &Options::default()).unwrap();
    let report = &quantised.report;
    assert!(report.outputs.cosine > 0.9995, "{report}");
    assert!(report.layers.iter().all(|layer| layer.kept_f16.is_none()), "{report}");
    assert!(report.to_string().contains("6 layers in int8, 0 in f16"), "{report}");
    let json = serde_json::to_value(report).unwrap();
    assert_eq!(json["layers"].as_array().unwrap().len(), 6);
}

#[test]
fn equalising_undoes_outliers_and_changes_no_float_result() {
    let samples = samples(&[1, 12, 64], 4);
    let network = with_outliers(block());
    let plain = Options { equalise: false, f16_share_max: 0.0, ..Options::default() };
    let without = quantise(network.clone(), &samples, &plain).unwrap().report.outputs;
    let options = Options { equalise: true, ..plain };
    let with = quantise(network.clone(), &samples, &options).unwrap().report;
    assert!(with.outputs.cosine > 0.999, "{with}");
    assert!(
        with.outputs.snr_db > without.snr_db + 6.0,
        "{} then {}",
        without.snr_db,
        with.outputs.snr_db
    );
    assert!(with.equalised.iter().any(|name| name == "norm1"));

    let mut moved = network.clone();
    let runs = calibrate::Runs::new(&network.graph, &network.weights, &samples).unwrap();
    equalise::equalise(&mut moved, ONE, &runs).unwrap();
    assert_ne!(moved.weights, network.weights);
    let sums = ErrorSums::of(&outputs(&network, &samples), &outputs(&moved, &samples));
    assert!(sums.snr_db() > 110.0, "{}", sums.snr_db());
}

#[test]
fn layers_stay_f16_when_named_or_when_the_network_asks_for_more() {
    let samples = samples(&[1, 12, 64], 2);
    let named = Options { keep_f16: vec!["block/d*n".to_owned()], ..Options::default() };
    let report = quantise(block(), &samples, &named).unwrap().report;
    let kept: Vec<_> = report.layers.iter().filter(|l| l.kept_f16.is_some()).collect();
    assert_eq!(kept.len(), 1);
    assert!(kept[0].node == "down" && kept[0].kept_f16.as_ref().unwrap().contains("d*n"));

    let base = quantise(block(), &samples, &Options::default()).unwrap().report.outputs.snr_db;
    let strict = Options { snr_db_min: base + 3.0, f16_share_max: 0.6, ..Options::default() };
    let report = quantise(block(), &samples, &strict).unwrap().report;
    let kept = report.layers.iter().filter(|l| l.kept_f16.is_some()).count();
    assert!(report.outputs.snr_db >= base + 3.0 && (1..6).contains(&kept), "{report}");
    let capped = Options { f16_share_max: 0.0, ..strict };
    let report = quantise(block(), &samples, &capped).unwrap().report;
    assert!(report.layers.iter().all(|layer| layer.kept_f16.is_none()));
}

#[test]
fn attention_over_many_keys_is_int8_where_it_may_be() {
    let run = |keys: usize, options: &Options| {
        quantise(attention(keys), &samples(&[1, keys, 64], 2), options).unwrap()
    };
    let int8 = |quantised: &Quantised| {
        quantised.graph.nodes.iter().any(|node| matches!(node.op, Op::AttentionI8 { heads: 4, .. }))
    };
    let usual = run(300, &Options::default());
    let report = &usual.report;
    assert!(int8(&usual) && report.attentions[0].keys == 300, "{report}");
    assert!(report.attentions[0].alone.snr_db > 30.0 && report.outputs.cosine > 0.995, "{report}");
    assert!(report.to_string().contains(" 300 keys  int8, attention"), "{report}");

    let few = run(255, &Options::default());
    assert!(!int8(&few) && few.report.attentions.is_empty());
    let named = Options { keep_f16: vec!["*/attention".to_owned()], ..Options::default() };
    assert!(!int8(&run(300, &named)));
    // Other channels dominate queries than keys, so that either's rest is lost.
    let mut lopsided = attention(300);
    for (tensor, channel) in [("q.w", 0), ("k.w", 1)] {
        let weights = &mut lopsided.weights.get_mut(tensor).unwrap().data;
        for row in weights.chunks_mut(64).skip(channel).step_by(16) {
            row.iter_mut().for_each(|w| *w *= 100.0);
        }
    }
    let plain = Options { equalise: false, ..Options::default() };
    let lopsided = quantise(lopsided, &samples(&[1, 300, 64], 2), &plain).unwrap();
    let reason = lopsided.report.attentions[0].kept_float.clone().unwrap();
    assert!(!int8(&lopsided) && reason.contains("below 20 dB"), "{reason}");
    // The network asks for more than int8 gives: attention goes back to float like any layer. Every layer has a third of
    // the weights.
    let strict = Options { snr_db_min: 60.0, f16_share_max: 2.0, ..Options::default() };
    let strict = run(300, &strict);
    let reason = strict.report.attentions[0].kept_float.clone().unwrap();
    assert!(!int8(&strict) && reason.contains("alone it brings the network to"), "{reason}");
}

#[test]
fn a_convolution_takes_one_scale_when_rows_are_alike_and_row_scales_when_not() {
    let network = |channels: usize| {
        let mut b = Builder::new("conv", &[1, 6, 6, channels]);
        let panels = b.tensor("w", &[16, 3, 3, channels], 0.1);
        let weight = Weight { panels, scale: None, sums: None, bias: None };
        let window = Window { kernel: [3, 3], stride: [1, 1], pad: [1, 1, 1, 1] };
        let (c, epilogue) = (channels as u32, Epilogue::default());
        b.node("conv", Op::ConvF16 { weight, c, n: 16, window, epilogue }, &[0], &[1, 6, 6, 16]);
        b.network
    };
    // Clamped values fill the same range in every row; normal ones do not.
    let mut alike = samples(&[1, 6, 6, 8], 8);
    for inputs in &mut alike.inputs {
        inputs.get_mut("x").unwrap().values.iter_mut().for_each(|x| *x = x.clamp(-1.0, 1.0));
    }
    let quantised = quantise(network(8), &alike, &Options::default()).unwrap();
    let Op::ConvI8 { input_scale, weight, .. } = &quantised.graph.nodes[0].op else {
        panic!("{:?}", quantised.graph.nodes[0].op)
    };
    assert!(matches!(input_scale, InputScale::Static(_)), "{}", quantised.report);
    let shape = PanelShape { outputs: 16, kernel_rows: 3, kernel_columns: 3, channels: 8 };
    let panels = quantised.tensors.iter().find(|t| t.name == weight.panels).unwrap();
    assert_eq!(panels.data.bytes(), shape.bytes());
    assert_eq!(quantised.tensors[0].name, "conv/w");
    let sums = quantised.tensors.iter().find(|t| Some(&t.name) == weight.sums.as_ref()).unwrap();
    let (StoredData::I8(panels), StoredData::I32(sums)) = (&panels.data, &sums.data) else {
        panic!("int8 panels and int32 sums")
    };
    assert_eq!(*sums, shape.sums(panels));

    let uneven = samples(&[1, 6, 6, 8], 8);
    let quantised = quantise(network(8), &uneven, &Options::default()).unwrap();
    let layer = &quantised.report.layers[0];
    assert_eq!(layer.precision, "int8, input by row");
    assert!(layer.static_snr_db.unwrap() < layer.row_snr_db - 0.5);
}

#[test]
fn values_are_f16_but_where_f16_would_not_do() {
    let mut b = Builder::new("types", &[1, 64, 64]);
    let mut large = b.matmul("large", 0, 64, 64);
    b.network.graph.values[large as usize].shape[1] = Dim::fixed(64);
    for tensor in ["large.w", "large.b"] {
        let scale = |x: &mut f32| *x *= 1e5;
        b.network.weights.get_mut(tensor).unwrap().data.iter_mut().for_each(scale);
    }
    for (name, shape) in [("flat", &[1, 4096][..]), ("back", &[1, 64, 64][..])] {
        large = b.node(name, Op::Reshape, &[large], shape);
    }
    let small = b.matmul("usual", large, 64, 64);
    b.network.graph.values[small as usize].shape[1] = Dim::fixed(64);
    b.network.weights.get_mut("usual.w").unwrap().data.iter_mut().for_each(|x| *x *= 1e-5);
    let out = b.matmul("out", small, 64, 64);
    b.network.graph.values[out as usize].shape[1] = Dim::fixed(64);
    let quantised =
        quantise(b.network.clone(), &samples(&[1, 64, 64], 1), &Options::default()).unwrap();
    let dtypes: Vec<DType> = quantised.graph.values.iter().map(|v| v.dtype).collect();
    use DType::{F16, F32};
    assert_eq!(dtypes, [F32, F32, F32, F32, F16, F32]);
}

#[test]
fn tables_are_int8_by_row_and_names_carry_the_network() {
    let mut b = Builder::new("words", &[1, 12]);
    b.network.graph.values[0].dtype = DType::I32;
    let table = b.tensor("table", &[9, 64], 1.0);
    let op = Op::Gather { table, scale: None, rows: 9 };
    b.node("gather", op, &[0], &[1, 12, 64]);
    let ids = Array { shape: vec![1, 12], values: (0..12).map(|i| (i % 9) as f32).collect() };
    let inputs = vec![Inputs::from([("x".to_owned(), ids)])];
    let samples = Samples { binding: ONE, inputs };
    let quantised = quantise(b.network.clone(), &samples, &Options::default()).unwrap();
    let names: Vec<&str> = quantised.tensors.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["words/table.scale", "words/table"]);
    assert_eq!(quantised.tensors[1].data.bytes(), 9 * 64);
    assert_eq!(quantised.report.int8_tables, 1);
    let none = Samples { binding: ONE, inputs: Vec::new() };
    assert!(quantise(b.network.clone(), &none, &Options::default()).is_err());
}

#[test]
fn patterns_take_stars_for_anything() {
    assert!(matches("a*c", "abbbc") && matches("*", "") && matches("*x*", "axb"));
    assert!(!matches("a*c", "abcd") && !matches("a", "ab") && !matches("", "a"));
}
