//! Small packs for tests: together they use every op and every key of the format.

use plantain::graph::{Binary, Binding};
use plantain::graph::{
    DType, Dim, Epilogue, Graph, InputScale, Node, Op, PoolKind, ResizeMode, ShuffleOrder, Unary,
    Value, ValueId, Weight, Window, tensor_needs,
};
use plantain::pack::{
    Golden, LayerReport, Metadata, PackBuilder, Provenance, Report, Source, TensorType,
};
use plantain::pipeline::PipelineSpec;
use serde_json::json;

/// A graph under construction.
struct Sketch(Graph);

impl Sketch {
    fn new(name: &str) -> Self {
        let (values, nodes) = (Vec::new(), Vec::new());
        let (inputs, outputs) = (Vec::new(), Vec::new());
        Sketch(Graph { name: name.to_owned(), values, nodes, inputs, outputs })
    }

    /// A value; `shape` is the JSON of its dimensions.
    fn value(&mut self, name: &str, shape: serde_json::Value, dtype: DType) -> ValueId {
        let shape = serde_json::from_value(shape).expect("a shape");
        self.0.values.push(Value { name: name.to_owned(), shape, dtype });
        ValueId(self.0.values.len() as u32 - 1)
    }

    fn input(&mut self, name: &str, shape: serde_json::Value, dtype: DType) -> ValueId {
        let id = self.value(name, shape, dtype);
        self.0.inputs.push(id);
        id
    }

    fn node(
        &mut self,
        name: &str,
        op: Op,
        inputs: &[ValueId],
        shape: serde_json::Value,
    ) -> ValueId {
        self.typed(name, op, inputs, shape, DType::F16)
    }

    fn typed(
        &mut self,
        name: &str,
        op: Op,
        inputs: &[ValueId],
        shape: serde_json::Value,
        dtype: DType,
    ) -> ValueId {
        let output = self.value(&format!("{name}_out"), shape, dtype);
        self.0.nodes.push(Node { name: name.to_owned(), op, inputs: inputs.to_vec(), output });
        output
    }

    fn name(&self, node: &str, part: &str) -> String {
        format!("{}.{node}.{part}", self.0.name)
    }

    fn int8(&self, node: &str) -> Weight {
        Weight {
            panels: self.name(node, "panels"),
            scale: Some(self.name(node, "scale")),
            sums: Some(self.name(node, "sums")),
            bias: Some(self.name(node, "bias")),
        }
    }

    fn half(&self, node: &str) -> Weight {
        Weight { panels: self.name(node, "panels"), scale: None, sums: None, bias: None }
    }

    fn matmul(
        &mut self,
        name: &str,
        x: ValueId,
        k: u32,
        n: u32,
        shape: serde_json::Value,
    ) -> ValueId {
        let (weight, epilogue) = (self.int8(name), Epilogue::default());
        self.node(name, Op::MatmulI8 { weight, k, n, epilogue }, &[x], shape)
    }
}

fn window(kernel: u32, stride: u32, pad: u32) -> Window {
    Window { kernel: [kernel; 2], stride: [stride; 2], pad: [pad; 4] }
}

fn text_encoder() -> Graph {
    let mut s = Sketch::new("text_encoder");
    let tokens = || json!([{"b": 1}, 7, 16]);
    let ids = s.input("ids", json!([{"b": 1}, 7]), DType::I32);
    let (table, scale) = (s.name("embed", "table"), Some(s.name("embed", "scale")));
    let rows = s.node("embed", Op::Gather { table, scale, rows: 9 }, &[ids], tokens());
    let (gamma, beta) = (s.name("norm", "gamma"), Some(s.name("norm", "beta")));
    let x = s.node("norm", Op::LayerNorm { eps: 1e-5, gamma, beta }, &[rows], tokens());
    let q = s.matmul("q", x, 16, 16, tokens());
    let k = s.matmul("k", x, 16, 16, tokens());
    let weight = s.half("v");
    let epilogue = Epilogue::default();
    let v = s.node("v", Op::MatmulF16 { weight, k: 16, n: 16, epilogue }, &[x], tokens());
    let tensor = s.name("mask", "values");
    let mask = s.typed("mask", Op::Constant { tensor }, &[], json!([1, 1, 7]), DType::F32);
    let attention = Op::Attention { heads: 2, scale: 0.35, causal: true };
    let a = s.node("attention", attention, &[q, k, v, mask], tokens());
    let attention = Op::AttentionI8 { heads: 2, scale: 0.35, causal: true };
    let a = s.node("attention_i8", attention, &[a, k, v, mask], tokens());
    let weight = s.int8("proj");
    let epilogue = Epilogue { activation: Some(Unary::Gelu), residual: true };
    let r = s.node("proj", Op::MatmulI8 { weight, k: 16, n: 16, epilogue }, &[a, x], tokens());
    let wide = s.matmul("wide", r, 16, 32, json!([{"b": 1}, 7, 32]));
    let gated = s.node("gated", Op::Gated { function: Unary::Silu }, &[wide], tokens());
    let gamma = s.name("rms", "gamma");
    let rms = s.node("rms", Op::RmsNorm { eps: 1e-6, size: 8, gamma }, &[gated], tokens());
    let square = || json!([{"b": 1}, 7, 7]);
    let scores = s.node("scores", Op::BatchMatmul { transpose_b: true }, &[rms, r], square());
    let weights = s.node("weights", Op::Softmax, &[scores], square());
    let mixed = s.node("mixed", Op::BatchMatmul { transpose_b: false }, &[weights, r], tokens());
    let turned = s.node(
        "turned",
        Op::Transpose { permutation: vec![0, 2, 1] },
        &[mixed],
        json!([{"b": 1}, 16, 7]),
    );
    let back = s.node("back", Op::Transpose { permutation: vec![0, 2, 1] }, &[turned], tokens());
    let states = s.typed("states", Op::Cast, &[back], tokens(), DType::F32);
    s.0.outputs.push(states);
    s.0
}

fn denoiser() -> Graph {
    let mut s = Sketch::new("denoiser");
    let image = |c: u32| json!([{"b": 1}, {"h": 1}, {"w": 1}, c]);
    let row = || json!([{"b": 1}, 1, 16]);
    let sample = s.input("sample", image(4), DType::F32);
    let timestep = s.input("timestep", json!([{"b": 1}]), DType::F32);
    let states = s.input("states", json!([{"b": 1}, 7, 16]), DType::F32);
    let frequencies = s.name("time", "frequencies");
    let time = Op::TimestepEmbedding { frequencies, sin_first: true };
    let time = s.node("time", time, &[timestep], json!([{"b": 1}, 16]));
    let time = s.node("time_row", Op::Reshape, &[time], row());
    let text = s.node("text", Op::ReduceMean { axes: vec![1] }, &[states], row());
    let sum = s.node("sum", Op::ReduceSum { axes: vec![1] }, &[states], row());
    let mixed = s.node("modulate", Op::Modulate, &[text, time, sum], row());
    let wide = s.node("wide", Op::Expand, &[mixed], json!([{"b": 1}, {"hw": 1}, 16]));
    let cells = s.node("cells", Op::Reshape, &[wide], image(16));
    let (weight, epilogue) = (s.int8("in"), Epilogue::default());
    let (window3, input_scale) = (window(3, 1, 1), InputScale::Row);
    let op = Op::ConvI8 { weight, c: 4, n: 16, window: window3, input_scale, epilogue };
    let x = s.node("in", op, &[sample], image(16));
    let x = s.node("add", Op::Binary { function: Binary::Add }, &[x, cells], image(16));
    let (gamma, beta) = (s.name("group", "gamma"), s.name("group", "beta"));
    let norm = Op::GroupNorm { groups: 4, eps: 1e-5, gamma, beta, activation: Some(Unary::Silu) };
    let x = s.node("group", norm, &[x], image(16));
    let (weight, bias) = (s.name("deep", "weight"), Some(s.name("deep", "bias")));
    let deep = Op::Depthwise { weight, bias, window: window3, epilogue: Epilogue::default() };
    let skip = s.node("deep", deep, &[x], image(16));
    let half = json!([{"b": 1}, {"h": 1, "div": 2}, {"w": 1, "div": 2}, 64]);
    let order = ShuffleOrder::ChannelFirst;
    let small = s.node("small", Op::PixelUnshuffle { factor: 2, order }, &[skip], half);
    let x = s.node("large", Op::PixelShuffle { factor: 2, order }, &[small], image(16));
    let double = json!([{"b": 1}, {"h": 2}, {"w": 2}, 16]);
    let x =
        s.node("resize", Op::Resize { factor: [2, 2], mode: ResizeMode::Nearest }, &[x], double);
    let (weight, epilogue) = (s.int8("down"), Epilogue { activation: None, residual: true });
    let input_scale = InputScale::Static(0.03);
    let op = Op::ConvI8 { weight, c: 16, n: 16, window: window(3, 2, 1), input_scale, epilogue };
    let x = s.node("down", op, &[x, skip], image(16));
    let padded = json!([{"b": 1}, {"1": 2, "h": 1}, {"1": 2, "w": 1}, 16]);
    let x = s.node("pad", Op::Pad { pad: [1; 4], value: 0.5 }, &[x], padded);
    let x = s.node(
        "pool",
        Op::Pool { kind: PoolKind::Average, window: window(3, 1, 0) },
        &[x],
        image(16),
    );
    let x = s.node("both", Op::Concat { axis: 3 }, &[x, skip], image(32));
    let x = s.node("half", Op::Slice { axis: 3, start: Dim::fixed(0) }, &[x], image(16));
    let x = s.node(
        "clamp",
        Op::Unary { function: Unary::Clamp { min: -4.0, max: 4.0 } },
        &[x],
        image(16),
    );
    let weight = s.half("out");
    let op =
        Op::ConvF16 { weight, c: 16, n: 4, window: window(1, 1, 0), epilogue: Epilogue::default() };
    let out = s.typed("out", op, &[x], image(4), DType::F32);
    s.0.outputs.push(out);
    s.0
}

fn decoder() -> Graph {
    let mut s = Sketch::new("decoder");
    let latent = s.input("latent", json!([{"b": 1}, {"h": 1}, {"w": 1}, 4]), DType::F32);
    let double = |c: u32| json!([{"b": 1}, {"h": 2}, {"w": 2}, c]);
    let bilinear = Op::Resize { factor: [2, 2], mode: ResizeMode::Bilinear };
    let x = s.typed("large", bilinear, &[latent], double(4), DType::F32);
    let (weight, epilogue) = (s.int8("rgb"), Epilogue::default());
    let (window, input_scale) = (window(3, 1, 1), InputScale::Row);
    let op = Op::ConvI8 { weight, c: 4, n: 3, window, input_scale, epilogue };
    let rgb = s.typed("rgb", op, &[x], double(3), DType::F32);
    s.0.outputs.push(rgb);
    s.0
}

fn pipeline() -> PipelineSpec {
    serde_json::from_value(json!({
        "tokenizer": {"kind": "word_piece", "tokens_max": 7, "uncased": true, "start_id": 1, "end_id": 2,
                      "pad_id": 0, "unknown_id": 3, "vocabulary": "tokenizer.vocabulary"},
        "size": {"latent_channels": 4, "cell_pixels": 2, "default": [16, 16], "min": [8, 8],
                 "max": [32, 32], "multiple": 4, "range": [-1.0, 1.0], "latent_scale": 1.0, "latent_shift": 0.0},
        "scheduler": {"kind": "flow_match_euler", "num_train_timesteps": 1000, "shift": 1.0,
                      "timestep_is_data_fraction": false},
        "prediction": "flow",
        "wiring": {"text_ids": "ids", "text_states": "states_out", "denoiser_sample": "sample",
                   "denoiser_timestep": "timestep", "denoiser_states": "states", "decoder_latent": "latent"},
        "steps_default": 2, "guidance_scale_default": 3.5,
        "styles": [{"name": "plain", "prompt": "{prompt}"}], "style_default": "plain", "words": ["apple"]}))
    .expect("a pipeline")
}

/// A whole pipeline of three tiny networks that use every op but the pipeline's refiner; weights are a
/// fixed pattern, pictures are noise.
pub fn every_op() -> PackBuilder {
    let graphs = vec![text_encoder(), denoiser(), decoder()];
    let provenance = Provenance {
        title: "Every op".to_owned(),
        licence: "MIT OR Apache-2.0".to_owned(),
        origin: "A fixed pattern; draws nothing.".to_owned(),
        packer: "plantain-tests".to_owned(),
        sources: vec![Source { path: "none".to_owned(), sha256: "0".repeat(64) }],
    };
    let binding = Binding { batch: 1, height: 4, width: 4 };
    let golden = Golden {
        network: "decoder".to_owned(),
        binding: binding.into(),
        inputs: [("latent".to_owned(), "golden.latent".to_owned())].into(),
        outputs: [("rgb_out".to_owned(), "golden.rgb".to_owned())].into(),
    };
    let report = Report {
        layers: vec![
            LayerReport {
                network: "text_encoder".to_owned(),
                node: "v".to_owned(),
                error: 0.01,
                kept_f16: Some("its error of 0.2 in int8 is above 0.05".to_owned()),
            },
            LayerReport {
                network: "text_encoder".to_owned(),
                node: "attention_i8".to_owned(),
                error: 0.02,
                kept_f16: None,
            },
        ],
        networks: [("denoiser".to_owned(), 0.999)].into(),
        pruning: None,
    };
    let metadata = Metadata {
        graphs: graphs.clone(),
        pipeline: Some(pipeline()),
        provenance,
        golden: vec![golden],
        report: Some(report),
    };
    let mut pack = PackBuilder::new(metadata).u8("tokenizer.vocabulary", &[5], b"apple");
    for graph in &graphs {
        pack = pack.page();
        for node in &graph.nodes {
            for need in tensor_needs(graph, node).expect("a valid node") {
                let bytes = pattern(need.dtype, need.elements as usize);
                pack = pack.tensor(need.name, need.dtype, &[need.elements as usize], &bytes);
            }
        }
    }
    pack.f32("golden.latent", &[1, 4, 4, 4], &[0.5; 64]).f32(
        "golden.rgb",
        &[1, 8, 8, 3],
        &[0.5; 192],
    )
}

/// Values between -1 and 1 (or -9 and 9), as little-endian bytes.
fn pattern(dtype: TensorType, elements: usize) -> Vec<u8> {
    let step = |index: usize| (index * 7 % 19) as i8 - 9;
    (0..elements)
        .flat_map(|index| match dtype {
            TensorType::I8 | TensorType::U8 => vec![step(index) as u8],
            TensorType::F16 => {
                half::f16::from_f32(f32::from(step(index)) / 9.0).to_le_bytes().to_vec()
            }
            TensorType::F32 => (f32::from(step(index)) / 9.0).to_le_bytes().to_vec(),
            TensorType::I32 => i32::from(step(index)).to_le_bytes().to_vec(),
        })
        .collect()
}
