//! What a plan will do, for people and programs.

use std::fmt::Write;

use serde::Serialize;

use crate::graph::Graph;
use crate::units::Bytes;

use super::{
    Load, Owner, Pass, Plan, Residency, Step, Storage, TaskStep, live_bytes_max, task_macs,
};

/// A plan in numbers; its JSON is what `plantain plan --json` prints for each network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanReport {
    /// The network.
    pub network: String,
    /// Batch, height, width.
    pub binding: [u32; 3],
    /// Workers.
    pub threads: usize,
    /// Size of the arena.
    pub arena_bytes: usize,
    /// The most bytes that live at one time; the rest of the arena is lost between regions.
    pub live_bytes_max: usize,
    /// Rows of a strip, if tasks are rolled.
    pub strip_height: Option<usize>,
    /// Multiply-adds of one run.
    pub macs: u64,
    /// Of these, what depends on steady inputs alone: the prompt's, of a denoiser.
    pub steady_macs: u64,
    /// The first steps, which runs after the first leave out while those inputs stay; 0 if nothing is kept.
    pub prologue_steps: usize,
    /// Bytes that are kept for that, beside the arena.
    pub kept_bytes: usize,
    /// The most bytes of weights in memory at one time, if they are streamed.
    pub window_bytes: Option<usize>,
    /// Bytes of weights that one run reads from storage, if they are streamed.
    pub streamed_bytes: Option<usize>,
    /// In order.
    pub steps: Vec<StepReport>,
}

/// One step, or the steps of one task in a strip.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// Index of the step in the plan.
    pub step: usize,
    /// The node.
    pub node: String,
    /// Its op, with the pass behind it if it is one of several.
    pub op: String,
    /// Rows of its result: first, end.
    pub rows: [usize; 2],
    /// Rows of the whole result.
    pub rows_total: usize,
    /// Regions that it reads: first byte, bytes.
    pub reads: Vec<[usize; 2]>,
    /// The region that it writes.
    pub writes: [usize; 2],
    /// What it writes are quantised rows, for int8 products.
    pub quantised: bool,
    /// Its scratch.
    pub scratch: Option<[usize; 2]>,
    /// Bytes of the arena that live during the step.
    pub live_bytes: usize,
    /// Multiply-adds.
    pub macs: u64,
    /// Bytes of the pack that may be read from this step on, and that no later step needs.
    pub prefetch_bytes: usize,
    /// See `prefetch_bytes`.
    pub release_bytes: usize,
}

impl PlanReport {
    /// Describes a plan of a graph.
    pub fn new(graph: &Graph, plan: &Plan, residency: Option<&Residency>) -> Self {
        let live = live_bytes(plan);
        let mut steps = Vec::new();
        for (index, step) in plan.steps.iter().enumerate() {
            for task_step in step.task_steps() {
                steps.push(step_report(
                    graph,
                    plan,
                    residency,
                    index,
                    step,
                    task_step,
                    live[index],
                ));
            }
        }
        let binding = plan.options.binding;
        PlanReport {
            network: plan.network.clone(),
            binding: [binding.batch, binding.height, binding.width],
            threads: plan.options.threads,
            arena_bytes: plan.arena_bytes,
            live_bytes_max: live_bytes_max(&plan.buffers),
            strip_height: plan.strip_height,
            macs: super::macs(graph, &plan.tasks),
            steady_macs: plan.steady_macs,
            prologue_steps: plan.prologue_steps,
            kept_bytes: plan.kept_bytes,
            window_bytes: residency.map(Residency::held_bytes),
            streamed_bytes: residency.map(Residency::bytes),
            steps,
        }
    }

    /// Multiply-adds of a run that finds its steady inputs unchanged.
    pub fn later_macs(&self) -> u64 {
        if self.prologue_steps > 0 { self.macs - self.steady_macs } else { self.macs }
    }

    /// As text: one line a step, strips folded to one line a task.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let [batch, height, width] = self.binding;
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{}: batch {batch}, {height} x {width}, {} threads, arena {} ({} live at most), {:.1} MMAC",
            self.network,
            self.threads,
            Bytes(self.arena_bytes as u64),
            Bytes(self.live_bytes_max as u64),
            self.macs as f64 / 1e6,
        );
        let steady = self.steady_macs as f64 / 1e6;
        if self.prologue_steps > 0 {
            let (steps, bytes) = (self.prologue_steps, Bytes(self.kept_bytes as u64));
            let _ = writeln!(
                out,
                "  {steady:.2} MMAC in the first {steps} steps run once a prompt, their results kept in {bytes}; {:.1} MMAC each run",
                self.later_macs() as f64 / 1e6
            );
        } else if self.steady_macs > 0 {
            let _ = writeln!(
                out,
                "  {steady:.2} MMAC depend on the prompt alone and run every time: nothing is kept"
            );
        }
        if let Some(height) = self.strip_height {
            let _ = writeln!(out, "  rolled in strips of {height} rows");
        }
        if let (Some(window), Some(bytes)) = (self.window_bytes, self.streamed_bytes) {
            let (window, bytes) = (Bytes(window as u64), Bytes(bytes as u64));
            let _ = writeln!(out, "  weights streamed: {bytes} a run, {window} at a time");
        }
        let _ = writeln!(
            out,
            "  {:>5} {:<22} {:>11} {:>11} {:>11} {:>9}  node",
            "step", "op", "rows", "at", "live", "MMAC"
        );
        let mut folded: Vec<(&StepReport, usize)> = Vec::new();
        for step in &self.steps {
            // A task that runs in strips shows once, with the number of its steps.
            match folded
                .iter_mut()
                .find(|(first, _)| first.node == step.node && first.op == step.op)
            {
                Some((_, count)) => *count += 1,
                None => folded.push((step, 1)),
            }
        }
        for (step, count) in folded {
            let rows = match count {
                1 => format!("{}", step.rows[1] - step.rows[0]),
                count => format!("{} in {count}", step.rows_total),
            };
            let _ = writeln!(
                out,
                "  {:>5} {:<22} {rows:>11} {:>11} {:>11} {:>9.2}  {}{}",
                step.step,
                step.op,
                step.writes[0],
                step.live_bytes,
                step.macs as f64 * count as f64 / 1e6,
                step.node,
                if step.quantised { ", to int8" } else { "" }
            );
        }
        out
    }
}

fn step_report(
    graph: &Graph,
    plan: &Plan,
    residency: Option<&Residency>,
    index: usize,
    step: &Step,
    task_step: &TaskStep,
    live_bytes: usize,
) -> StepReport {
    let task = &plan.tasks.tasks[task_step.task];
    let node = &graph.nodes[task.node];
    let region = |buffer: usize| [plan.buffers[buffer].offset, plan.buffers[buffer].bytes];
    let place = |slot: usize| match plan.storage[slot] {
        Storage::Arena { buffer, .. } => Some(region(buffer)),
        _ => None,
    };
    let op = match (step, task.pass) {
        (Step::Segment { .. }, _) => format!("segment {}", node.op.name()),
        (_, Pass::Whole) => node.op.name().to_owned(),
        (_, pass) => format!("{} {pass:?}", node.op.name()).to_lowercase(),
    };
    let (rows, total) = (&task_step.rows, plan.tasks.layouts[task.output].rows);
    let sum = |at: fn(&Load) -> usize| {
        let loads = residency.iter().flat_map(|residency| &residency.loads);
        loads.filter(|load| at(load) == index).map(|load| load.range.len()).sum()
    };
    StepReport {
        step: index,
        node: node.name.clone(),
        op,
        rows: [rows.start, rows.end],
        rows_total: total,
        reads: task.inputs.iter().filter_map(|&slot| place(slot)).collect(),
        writes: place(task.output).unwrap_or_default(),
        quantised: plan.tasks.layouts[task.output].quantised.is_some(),
        scratch: task_step.scratch.map(region),
        live_bytes,
        macs: task_macs(graph, &plan.tasks, task) * rows.len() as u64 / total.max(1) as u64,
        prefetch_bytes: sum(|load| load.asked_step),
        release_bytes: sum(|load| load.last_step),
    }
}

/// Bytes of regions that live during each step.
fn live_bytes(plan: &Plan) -> Vec<usize> {
    let mut change = vec![0i64; plan.steps.len() + 1];
    for buffer in plan.buffers.iter().filter(|buffer| !buffer.kept) {
        change[buffer.first_step] += buffer.bytes as i64;
        change[buffer.last_step + 1] -= buffer.bytes as i64;
    }
    let mut live = 0;
    change[..plan.steps.len()]
        .iter()
        .map(|change| {
            live += change;
            live as usize
        })
        .collect()
}

/// What a region holds, in few words.
pub(super) fn label(graph: &Graph, plan: &Plan, owner: Owner) -> String {
    match owner {
        Owner::Scratch => "scratch".to_owned(),
        Owner::Slot(slot) => match graph.values.get(slot) {
            Some(value) => {
                let layout = &plan.tasks.layouts[slot];
                let form = if layout.quantised.is_some() { " in int8" } else { "" };
                format!("{} {:?}{form}", value.name, layout.shape)
            }
            None => {
                let made = |task: &&super::Task| task.output == slot;
                match plan.tasks.tasks.iter().find(made).map(|task| task.pass) {
                    Some(Pass::Keys) => "keys and values in int8".to_owned(),
                    _ => "statistics of a group norm".to_owned(),
                }
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Binding;
    use crate::plan::PlanOptions;

    #[test]
    fn a_report_names_steps_regions_and_totals() {
        let graph: Graph = serde_json::from_str(
            r#"{"name": "two", "inputs": [0], "outputs": [2],
                "values": [{"name": "x", "shape": [1, 4, 4, 8], "dtype": "f16"},
                           {"name": "p", "shape": [1, 2, 2, 8], "dtype": "f16"},
                           {"name": "<y>", "shape": [1, 2, 2, 8], "dtype": "f32"}],
                "nodes": [{"name": "pool", "op": "pool", "kind": "max", "kernel": [2, 2],
                           "stride": [2, 2], "pad": [0, 0, 0, 0], "inputs": [0], "output": 1},
                          {"name": "cast", "op": "cast", "inputs": [1], "output": 2}]}"#,
        )
        .unwrap();
        let binding = Binding { batch: 1, height: 1, width: 1 };
        let plan = Plan::new(&graph, &PlanOptions::new(binding, 1)).unwrap();
        let report = PlanReport::new(&graph, &plan, None);
        assert_eq!(report.steps.len(), 2);
        assert_eq!(report.steps[0].reads[0][1], 256);
        assert_eq!(report.steps[1].writes[1], 128);
        let text = report.text();
        assert!(text.starts_with("two: batch 1") && text.contains("cast"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["steps"][0]["op"], "pool");
        let svg = super::super::svg(&[(&graph, &plan)]);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(svg.contains("&lt;y&gt;") && !svg.contains("<y>"), "{svg}");
    }
}
