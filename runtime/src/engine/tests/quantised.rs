//! Values that are stored as quantised rows: which they are, and the same bytes as from floats.

use proptest::prelude::*;

use super::net::{Net, window};
use super::{BINDING, bits, check, plan, run, steady};
use crate::graph::{Binary, DType, InputScale, Op, Unary, ValueId};
use crate::kernel::Kernels;
use crate::plan::check::{CheckError, check as prove};
use crate::plan::{Owner, Plan, PlanOptions, PlanRecipe, PlanReport, Scale, Storage};

fn cooked(net: &Net, threads: usize, recipe: PlanRecipe) -> Plan {
    Plan::of_recipe(&net.graph, &PlanOptions::new(BINDING, threads), recipe).unwrap()
}

/// Slots that are stored quantised.
fn stored(plan: &Plan) -> Vec<usize> {
    let layouts = plan.tasks.layouts.iter().enumerate();
    layouts.filter(|(_, layout)| layout.quantised.is_some()).map(|(slot, _)| slot).collect()
}

fn add(net: &mut Net, x: ValueId, y: ValueId) -> ValueId {
    net.plain(Op::Binary { function: Binary::Add }, &[x, y])
}

/// A random image that passes through blocks: an op that makes whole vectors, then products that read them, then their sum.
/// Some vectors are read as floats as well, some in another shape.
fn blocks(seed: u64) -> Net {
    let mut net = Net::new(seed);
    let (samples, height, width) = (1 + net.below(2), 1 + net.below(6), 1 + net.below(6));
    let c = 1 + net.below(21);
    let shape = [samples, height, width, c];
    let mut x = net.input(&shape, DType::F16);
    let y = net.input(&shape, DType::F16);
    let small = net.input(&[samples, 1, 1, c], DType::F16);
    let mut written = false;
    for _ in 0..1 + net.below(4) {
        let made = match net.below(9) {
            0 => net.layer_norm(x),
            1 => net.rms_norm(x, c),
            2 => net.group_norm(x, 1, Some(Unary::Silu)),
            3 => {
                let wide = net.matmul_i8(x, 2 * c, (None, None));
                net.plain(Op::Gated { function: Unary::Gelu }, &[wide])
            }
            4 => net.unary(Unary::Tanh, x),
            5 => add(&mut net, x, y),
            6 => net.plain(Op::Binary { function: Binary::Mul }, &[small, x]),
            7 => net.plain(Op::Modulate, &[x, small, y]),
            _ => net.plain(Op::Softmax, &[x]),
        };
        let turned = net.below(3) == 0;
        let tokens = [samples, height * width, c];
        let mut parts = Vec::new();
        for _ in 0..1 + net.below(3) {
            let product = if turned {
                let made = net.plain_to(Op::Reshape, &[made], Some(&tokens));
                let product = net.matmul_i8(made, c, (None, None));
                net.plain_to(Op::Reshape, &[product], Some(&shape))
            } else {
                net.matmul_i8(made, c, (Some(Unary::Silu), Some(y)))
            };
            parts.push(product);
        }
        if net.below(4) == 0 {
            parts.push(made);
        }
        if net.below(5) == 0 && !written {
            net.output(made);
            written = true;
        }
        let sum = parts.into_iter().fold(x, |sum, part| add(&mut net, sum, part));
        x = sum;
    }
    net.output(x);
    net
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_graph_gives_the_same_bytes(
        seed in 0u64..1 << 40,
        recipe in 0..PlanRecipe::ALL.len(),
        threads in 1usize..4,
        kernels in 0usize..9,
    ) {
        let net = blocks(seed);
        let tables = Kernels::available();
        let recipe = PlanRecipe::ALL[recipe];
        let floats = cooked(&net, 1, PlanRecipe { quantised: false, ..recipe });
        prop_assert!(stored(&floats).is_empty());
        let expected = bits(&run(&net, floats, tables[0]));
        let plan = cooked(&net, threads, recipe);
        prop_assert_eq!(bits(&run(&net, plan, tables[kernels % tables.len()])), expected);
    }
}

/// Every op that can store quantised rows before products of vectors that are no whole number of groups.
fn each(samples: usize) -> (Net, Vec<ValueId>) {
    let mut net = Net::new(11);
    let (h, w, c) = (4, 5, 10);
    let x = net.input(&[samples, h, w, c], DType::F16);
    let wide = net.matmul_i8(x, 2 * c, (None, None));
    let made = vec![
        net.layer_norm(x),
        net.rms_norm(x, c / 2),
        net.group_norm(x, 2, None),
        net.unary(Unary::Silu, x),
        net.plain(Op::Modulate, &[x, x, x]),
        net.plain(Op::Gated { function: Unary::Gelu }, &[wide]),
        net.plain(Op::Softmax, &[x]),
        add(&mut net, x, x),
    ];
    let mut sum = x;
    for (index, &made) in made.iter().enumerate() {
        for _ in 0..1 + index % 3 {
            let part = net.matmul_i8(made, c, (None, None));
            sum = add(&mut net, sum, part);
        }
    }
    net.output(sum);
    (net, made)
}

#[test]
fn vectors_that_products_alone_read_are_stored_quantised() {
    let (net, made) = each(2);
    let planned = plan(&net, 2);
    assert_eq!(stored(&planned), made.iter().map(|id| id.index()).collect::<Vec<_>>());
    let report = PlanReport::new(&net.graph, &planned, None);
    assert_eq!(report.steps.iter().filter(|step| step.quantised).count(), made.len());
    assert!(report.text().contains(", to int8"), "{}", report.text());
    for step in planned.steps.iter().flat_map(crate::plan::Step::task_steps) {
        let task = &planned.tasks.tasks[step.task];
        if made.iter().any(|id| task.inputs[..1] == [id.index()]) {
            assert!(step.scratch.is_none() && !step.prepared);
        }
    }
    // 40 vectors of 10 values: 12 bytes each and a scale, against 20; both on whole lines.
    let region = |slot: usize| planned.buffers.iter().find(|b| b.owner == Owner::Slot(slot));
    assert_eq!(region(made[0].index()).unwrap().bytes, 512 + 192);
    check(&net, 0.05);
    // Nothing that may be handed over is stored so.
    let mut options = PlanOptions::new(BINDING, 2);
    options.segments.push(0..1);
    assert!(stored(&Plan::new(&net.graph, &options).unwrap()).is_empty());
}

#[test]
fn other_readers_keep_a_value_in_floats() {
    let base = |last: &dyn Fn(&mut Net, ValueId, ValueId) -> ValueId| {
        let mut net = Net::new(3);
        let x = net.input(&[1, 4, 6, 12], DType::F16);
        let made = net.layer_norm(x);
        let product = net.matmul_i8(made, 12, (None, None));
        let other = last(&mut net, made, x);
        let sum = add(&mut net, product, other);
        // What is read again is not written over.
        let sum = add(&mut net, sum, x);
        net.output(sum);
        check(&net, 0.05);
        stored(&plan(&net, 1)).len()
    };
    let scale = InputScale::Static(0.02);
    assert_eq!(base(&|net, made, _| net.matmul_i8(made, 12, (None, None))), 1);
    assert_eq!(base(&|net, made, _| net.matmul_f16(made, 12, (None, None))), 0);
    assert_eq!(base(&|net, made, x| net.matmul_i8(x, 12, (None, Some(made)))), 0);
    assert_eq!(base(&|net, made, _| net.unary(Unary::Tanh, made)), 0);
    assert_eq!(
        base(&|net, made, _| {
            net.output(made);
            made
        }),
        0
    );
    // Another scale, and another length of vectors.
    assert_eq!(
        base(&|net, made, _| net.conv_i8(made, 12, window(1, 1, 0), scale, (None, None))),
        0
    );
    assert_eq!(
        base(&|net, made, _| {
            let made = net.plain_to(Op::Reshape, &[made], Some(&[1, 8, 6, 6]));
            let product = net.matmul_i8(made, 6, (None, None));
            net.plain_to(Op::Reshape, &[product], Some(&[1, 4, 6, 12]))
        }),
        0
    );
}

#[test]
fn convolutions_of_one_cell_take_rows_by_the_packers_scale() {
    for c in [8, 9] {
        let mut net = Net::new(5);
        let x = net.input(&[2, 5, 3, c], DType::F16);
        let made = net.group_norm(x, 1, Some(Unary::Silu));
        let scale = InputScale::Static(0.02);
        let [a, b] = [(); 2].map(|()| net.conv_i8(made, 7, window(1, 1, 0), scale, (None, None)));
        let sum = add(&mut net, a, b);
        net.output(sum);
        let planned = plan(&net, 2);
        assert_eq!(planned.tasks.layouts[made.index()].quantised, Some(Scale::Static(0.02)));
        check(&net, 0.05);
    }
}

#[test]
fn a_large_attention_stores_its_rows_quantised() {
    let mut net = Net::new(9);
    let (tokens, c) = (260, 10);
    let q = net.input(&[2, tokens, c], DType::F16);
    let kv = net.input(&[2, 7, c], DType::F16);
    let attended = net.attention(&[q, kv, kv], 2, false);
    let out = net.matmul_i8(attended, 6, (None, None));
    net.output(out);
    assert_eq!(stored(&plan(&net, 2)), [attended.index()]);
    check(&net, 0.05);
    let kernels = Kernels::available()[0];
    let floats = PlanRecipe { quantised: false, ..PlanRecipe::ALL[0] };
    let expected = bits(&run(&net, cooked(&net, 1, floats), kernels));
    for recipe in PlanRecipe::ALL {
        assert_eq!(bits(&run(&net, cooked(&net, 3, recipe), kernels)), expected);
    }
}

#[test]
fn quantised_rows_of_a_prompt_are_kept() {
    let mut net = Net::new(4);
    let x = net.input(&[1, 6, 9], DType::F16);
    let states = net.input(&[1, 6, 9], DType::F16);
    let made = net.layer_norm(states);
    let key = net.matmul_i8(made, 9, (None, None));
    let other = net.matmul_i8(made, 9, (None, Some(x)));
    let out = add(&mut net, key, other);
    net.output(out);
    let options = PlanOptions { steady: vec![states], ..PlanOptions::new(BINDING, 2) };
    let planned = Plan::new(&net.graph, &options).unwrap();
    let Storage::Arena { buffer, .. } = planned.storage[made.index()] else { panic!("no region") };
    assert!(planned.buffers[buffer].kept && stored(&planned) == [made.index()]);
    for recipe in PlanRecipe::ALL {
        assert!(steady::both(&net, states, 2, recipe) > 0);
    }
}

#[test]
fn the_check_refuses_a_form_that_a_task_does_not_work_with() {
    let (net, made) = each(1);
    let planned = plan(&net, 1);
    assert!(prove(&net.graph, &planned).is_ok());
    let broken = |change: &dyn Fn(&mut Plan)| {
        let mut plan = planned.clone();
        change(&mut plan);
        prove(&net.graph, &plan).unwrap_err()
    };
    let is_form = |error| matches!(error, CheckError::Form { .. });
    let (slot, input) = (made[0].index(), net.graph.inputs[0].index());
    let scale = Some(Scale::Vector);
    let set = |slot: usize, scale| {
        broken(&move |plan: &mut Plan| plan.tasks.layouts[slot].quantised = scale)
    };
    // Another scale than the readers', a row's, an input, what a product makes.
    assert!(is_form(set(slot, Some(Scale::Static(0.5)))));
    assert!(is_form(set(slot, Some(Scale::Row))));
    assert!(matches!(set(input, scale), CheckError::Form { .. } | CheckError::Small { .. }));
    assert!(matches!(set(input + 1, scale), CheckError::Form { .. } | CheckError::Small { .. }));
    // Floats where there is room for bytes only.
    assert!(matches!(set(slot, None), CheckError::Small { .. }));
    let small = broken(&|plan: &mut Plan| {
        if let Storage::Arena { buffer, .. } = plan.storage[slot] {
            plan.buffers[buffer].bytes -= 1;
        }
    });
    assert!(matches!(small, CheckError::Small { .. }));
}
