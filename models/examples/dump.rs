use tract_onnx::prelude::*;
use tract_onnx::tract_core;
fn main() -> anyhow::Result<()> {
    let p = std::env::args().nth(1).unwrap();
    let t = std::time::Instant::now();
    let m = tract_onnx::onnx().model_for_path(&p)?;
    let m = m.into_typed()?;
    eprintln!("typed {:?}", t.elapsed());
    let m = if std::env::args().nth(2).is_some() { m } else { m.into_decluttered()? };
    eprintln!("declutter {:?}", t.elapsed());
    for id in m.eval_order()? {
        let n = m.node(id);
        let ins: Vec<String> = n
            .inputs
            .iter()
            .map(|i| {
                format!(
                    "{}:{:?}{}",
                    i.node,
                    m.outlet_fact(*i).unwrap().shape,
                    if m.node(i.node).op_as::<tract_core::ops::konst::Const>().is_some() {
                        "K"
                    } else {
                        ""
                    }
                )
            })
            .collect();
        if n.op_as::<tract_core::ops::konst::Const>().is_some() {
            continue;
        }
        println!(
            "{id} {} [{}] <- {} -> {:?}  {:?}",
            n.op.name(),
            n.name,
            ins.join(" "),
            n.outputs.iter().map(|o| format!("{:?}", o.fact.shape)).collect::<Vec<_>>(),
            n.op.info().unwrap_or_default()
        );
    }
    Ok(())
}
