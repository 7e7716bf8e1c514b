#![allow(missing_docs, dead_code)]
mod eval;
use plantain::graph::*;
use plantain_pack::{import::*, lower::*};
use std::collections::BTreeMap;
fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let verbose = args.iter().any(|a| a == "-v");
    let t = std::time::Instant::now();
    let mut imported = import(std::path::Path::new(&args[1]), &ImportOptions::default())?;
    eprintln!("import {:?} bindings {:?}", t.elapsed(), imported.sampling.bindings.len());
    let net = match lower(&imported, "net") {
        Ok(n) => n,
        Err(e) => {
            eprintln!("ERROR {e}");
            std::process::exit(1)
        }
    };
    eprintln!("lower {:?}", t.elapsed());
    let g = &net.graph;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for n in &g.nodes {
        *counts.entry(n.op.name()).or_default() += 1;
    }
    println!("{counts:?}");
    if verbose {
        for n in &g.nodes {
            let s = |v: ValueId| {
                format!("%{}{}", v.0, serde_json::to_string(&g.value(v).shape).unwrap())
            };
            println!(
                "{} {} <- {} -> {} | {}",
                n.name,
                n.op.name(),
                n.inputs.iter().map(|&i| s(i)).collect::<Vec<_>>().join(" "),
                s(n.output),
                serde_json::to_string(&n.op).unwrap()
            );
        }
    }
    let mut binding = net.binding;
    if net.free.height {
        binding = Binding { batch: 2, height: net.unit * 2, width: net.unit * 3 };
        if net.unit == 1 {
            binding.height = 6;
            binding.width = 9;
        }
        if !net.free.batch {
            binding.batch = net.binding.batch
        }
    }
    let mut inputs = BTreeMap::new();
    let mut seed = 1u64;
    for &id in &g.inputs {
        let v = g.value(id);
        let shape = net.shape(id, binding)?;
        let n: usize = shape.iter().product();
        let data: Vec<f32> = (0..n)
            .map(|i| {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let u = (seed >> 40) as f32 / (1u64 << 24) as f32;
                if v.dtype == DType::I32 {
                    if v.name.contains("mask") {
                        if i % shape[shape.len() - 1] < 7 { 1. } else { 0. }
                    } else {
                        (u * 190.0).floor()
                    }
                } else {
                    (u * 2. - 1.) * 1.7
                }
            })
            .collect();
        println!("input {} {:?} {shape:?}", v.name, v.dtype);
        inputs.insert(v.name.clone(), FloatTensor::new(shape, data));
    }
    let t = std::time::Instant::now();
    let values = eval::evaluate(&net, &inputs, binding)?;
    eprintln!("eval {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let reference = imported.reference(binding)?;
    let all: Vec<ValueId> = (0..g.values.len() as u32).map(ValueId).collect();
    let refs = reference.run(&net, &inputs, &all)?;
    eprintln!("reference {:?}", t.elapsed());
    let mut worst: (f32, String) = (0.0, String::new());
    for (id, r) in &refs {
        let v = &values[id];
        assert_eq!(v.shape, r.shape, "{}", g.value(*id).name);
        let scale = r.data.iter().fold(1e-6f32, |a, b| a.max(b.abs()));
        let e = v.data.iter().zip(&r.data).fold(0f32, |a, (x, y)| {
            if (x - y).is_nan() { f32::INFINITY } else { a.max((x - y).abs()) }
        }) / scale;
        if e > worst.0 {
            worst = (e, g.value(*id).name.clone());
        }
        if verbose || g.outputs.contains(id) {
            println!("{e:.2e} max {scale:.3} {}", g.value(*id).name);
        }
    }
    println!(
        "{} of {} values compared, worst {worst:?}; outputs have origin: {}",
        refs.len(),
        g.values.len(),
        g.outputs.iter().all(|o| refs.contains_key(o))
    );
    Ok(())
}
