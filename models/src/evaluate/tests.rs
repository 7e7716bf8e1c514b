use std::collections::{BTreeMap, HashMap};

use plantain::graph::{
    Binding, DType, Dim, Epilogue, Graph, InputScale, Node, Op, ShuffleOrder, Unary, Value,
    ValueId, Weight, Window,
};

use super::*;

const ONE: Binding = Binding { batch: 1, height: 1, width: 1 };

/// A graph that is a chain of ops on one input; every value has a given shape.
fn chain(shapes: &[&[usize]], ops: Vec<Op>) -> Graph {
    let values = shapes.iter().enumerate().map(|(i, shape)| Value {
        name: format!("v{i}"),
        shape: shape.iter().map(|&d| Dim::fixed(d)).collect(),
        dtype: DType::F32,
    });
    let nodes = ops.into_iter().enumerate().map(|(i, op)| Node {
        name: format!("n{i}"),
        op,
        inputs: vec![ValueId(i as u32)],
        output: ValueId(i as u32 + 1),
    });
    let last = ValueId(shapes.len() as u32 - 1);
    Graph {
        name: "chain".to_owned(),
        values: values.collect(),
        nodes: nodes.collect(),
        inputs: vec![ValueId(0)],
        outputs: vec![last],
    }
}

fn ramp(shape: &[usize]) -> Array {
    let len: usize = shape.iter().product();
    Array {
        shape: shape.to_vec(),
        values: (0..len).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect(),
    }
}

fn weight(name: &str, bias: Option<&str>) -> Weight {
    Weight { panels: name.to_owned(), scale: None, sums: None, bias: bias.map(str::to_owned) }
}

fn run(graph: &Graph, weights: &HashMap<String, Vec<f32>>, input: Array) -> Array {
    let inputs = BTreeMap::from([("v0".to_owned(), input)]);
    let mut values =
        Evaluator::new(graph, weights, ONE).run(&inputs, Precision::default()).unwrap();
    values[graph.outputs[0].index()].take().unwrap()
}

#[test]
fn a_strided_padded_convolution_equals_its_definition() {
    let window = Window { kernel: [3, 2], stride: [2, 1], pad: [1, 0, 1, 1] };
    let op = Op::ConvF16 {
        weight: weight("w", Some("b")),
        c: 3,
        n: 4,
        window,
        epilogue: Epilogue { activation: Some(Unary::LeakyRelu(0.1)), residual: false },
    };
    let graph = chain(&[&[2, 5, 4, 3], &[2, 3, 4, 4]], vec![op]);
    let weights = HashMap::from([
        ("w".to_owned(), ramp(&[4, 3, 2, 3]).values),
        ("b".to_owned(), vec![0.5, -0.5, 0.25, 0.0]),
    ]);
    let x = ramp(&[2, 5, 4, 3]);
    let out = run(&graph, &weights, x.clone());
    for (index, &found) in out.values.iter().enumerate() {
        let (n, column, row, image) = (index % 4, index / 4 % 4, index / 16 % 3, index / 48);
        let mut sum = weights["b"][n];
        for (ky, kx, c) in (0..18).map(|k| (k / 6, k / 3 % 2, k % 3)) {
            let (y, x_in) = (row as i64 * 2 + ky as i64 - 1, column as i64 + kx as i64);
            if (0..5).contains(&y) && (0..4).contains(&x_in) {
                let cell = ((image * 5 + y as usize) * 4 + x_in as usize) * 3 + c;
                sum += x.values[cell] * weights["w"][((n * 3 + ky) * 2 + kx) * 3 + c];
            }
        }
        let expected = if sum < 0.0 { 0.1 * sum } else { sum };
        assert!((found - expected).abs() < 1e-5, "{index}: {found} against {expected}");
    }
}

#[test]
fn shuffles_undo_each_other() {
    for order in [ShuffleOrder::ChannelFirst, ShuffleOrder::BlockFirst] {
        let graph = chain(
            &[&[1, 2, 3, 8], &[1, 4, 6, 2], &[1, 2, 3, 8]],
            vec![Op::PixelShuffle { factor: 2, order }, Op::PixelUnshuffle { factor: 2, order }],
        );
        let x = ramp(&[1, 2, 3, 8]);
        assert_eq!(run(&graph, &HashMap::new(), x.clone()), x);
    }
}

#[test]
fn group_norm_leaves_mean_beta_and_variance_gamma_squared() {
    let op = Op::GroupNorm {
        groups: 2,
        eps: 0.0,
        gamma: "g".to_owned(),
        beta: "b".to_owned(),
        activation: None,
    };
    let graph = chain(&[&[1, 3, 5, 4], &[1, 3, 5, 4]], vec![op]);
    let weights = HashMap::from([("g".to_owned(), vec![2.0; 4]), ("b".to_owned(), vec![3.0; 4])]);
    let out = run(&graph, &weights, ramp(&[1, 3, 5, 4]));
    for group in 0..2 {
        let values: Vec<f32> =
            out.values.chunks(4).flat_map(|c| c[group * 2..group * 2 + 2].to_vec()).collect();
        let mean = values.iter().sum::<f32>() / 30.0;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 30.0;
        assert!((mean - 3.0).abs() < 1e-5 && (variance - 4.0).abs() < 1e-4, "{mean} {variance}");
    }
}

#[test]
fn int8_of_one_layer_reaches_the_output_and_a_rerun_equals_a_run() {
    let matmul = |name: &str| Op::MatmulF16 {
        weight: weight(name, None),
        k: 8,
        n: 8,
        epilogue: Epilogue::default(),
    };
    let shape: &[usize] = &[1, 4, 8];
    let graph = chain(&[shape; 4], vec![matmul("a"), matmul("b"), matmul("a")]);
    let weights = HashMap::from([
        ("a".to_owned(), ramp(&[8, 8]).values),
        ("b".to_owned(), ramp(&[8, 8]).values.into_iter().rev().collect()),
    ]);
    let inputs = BTreeMap::from([("v0".to_owned(), ramp(&[1, 4, 8]))]);
    let evaluator = Evaluator::new(&graph, &weights, ONE);
    let base = evaluator.run(&inputs, Precision::default()).unwrap();
    let layer = Int8Layer { weight: Cow::Borrowed(&weights["b"]), input: InputScale::Row };
    let layers = BTreeMap::from([(1, layer)]);
    let precision = Precision { int8: Some(&layers), ..Precision::default() };
    let whole = evaluator.run(&inputs, precision).unwrap()[3].clone().unwrap();
    let part = evaluator.rerun(&base, &[1], precision, |_, _| ()).unwrap();
    assert_eq!(part[..], *std::slice::from_ref(&whole));
    assert_ne!(Some(whole), base[3].clone());
}

#[test]
fn int8_keeps_the_largest_value_and_rounds_half_to_even() {
    let mut values = vec![127.0, 0.5, 1.5, -2.5, 63.4, 0.0];
    fake_quantise(&mut values, 6, InputScale::Row);
    assert_eq!(values, [127.0, 0.0, 2.0, -2.0, 63.0, 0.0]);
    fake_quantise(&mut values, 3, InputScale::Static(0.5));
    assert_eq!(values, [63.5, 0.0, 2.0, -2.0, 63.0, 0.0]);
}

#[test]
fn what_is_missing_or_misshapen_is_named() {
    let op = Op::MatmulF16 { weight: weight("w", None), k: 8, n: 8, epilogue: Epilogue::default() };
    let graph = chain(&[&[1, 8], &[1, 8]], vec![op]);
    let message = |weights: &HashMap<String, Vec<f32>>, input: Array| {
        let inputs = BTreeMap::from([("v0".to_owned(), input)]);
        let evaluator = Evaluator::new(&graph, weights, ONE);
        evaluator.run(&inputs, Precision::default()).unwrap_err().to_string()
    };
    let none = HashMap::new();
    assert!(message(&none, ramp(&[1, 8])).contains("\"w\""));
    assert!(message(&none, ramp(&[1, 9])).contains("[1, 8]"));
    let short = HashMap::from([("w".to_owned(), vec![0.0; 63])]);
    assert!(message(&short, ramp(&[1, 8])).contains("63 values"));
}
