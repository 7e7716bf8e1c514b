//! Time by kind of op, run by run, against the peak of this core as it was meanwhile.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use plantain::engine::{Engine, NetworkIndex, OpProfile};
use plantain::kernel::{GemmI8Args, Kernels};
use serde_json::{Value, json};

use super::{median, round};

/// The most multiply-accumulates a second that the int8 kernel in use reaches on operands that stay in the first-level
/// cache: the largest of all that were measured, since other work on the machine only lowers it.
pub(super) struct Peak {
    kernels: &'static Kernels,
    gmacs_per_second: Cell<f64>,
}

impl Peak {
    /// Measured once.
    pub fn new(kernels: &'static Kernels) -> Self {
        let peak = Peak { kernels, gmacs_per_second: Cell::new(0.0) };
        peak.measure();
        peak
    }

    /// Measures again: behind runs and not between them, which would find their caches cold.
    pub fn measure(&self) {
        // Shapes that suit one kernel or another: turns of the inner loop, and groups of k.
        for (turns, groups) in [(1, 128), (2, 64), (4, 32)] {
            let measured = gmacs_per_second(self.kernels, turns, groups);
            self.gmacs_per_second.set(measured.max(self.gmacs_per_second.get()));
        }
    }

    /// Billions of multiply-accumulates a second, so far.
    pub fn gmacs_per_second(&self) -> f64 {
        self.gmacs_per_second.get()
    }
}

/// Operands lie on lines as the engine has them.
fn gmacs_per_second(kernels: &Kernels, turns: usize, groups: usize) -> f64 {
    const CALLS: usize = 250;
    let gemm = kernels.gemm_i8;
    let (rows, panels) = (turns * gemm.tile_rows, gemm.tile_panels);
    let act = vec![1u8; rows * groups * 4 + 64];
    let act = &act[act.as_ptr().align_offset(64)..];
    let weights = vec![1i8; panels * groups * 64 + 64];
    let weights = &weights[weights.as_ptr().align_offset(64)..];
    let mut acc = vec![0; rows * panels * 16 + 16];
    let at = acc.as_ptr().align_offset(64);
    let acc = &mut acc[at..];
    let mut best = f64::MAX;
    for _ in 0..10 {
        let start = Instant::now();
        for _ in 0..CALLS {
            (gemm.run)(GemmI8Args {
                act: black_box(act),
                act_stride: groups * 4,
                rows,
                weights,
                weights_stride: groups * 64,
                panels,
                groups,
                acc,
                acc_stride: panels * 16,
                accumulate: false,
            });
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    (CALLS * rows * panels * 16 * groups * 4) as f64 / best / 1e9
}

/// What each kind of op of one network took in each run.
#[derive(Default)]
pub(super) struct OpTimes {
    before: BTreeMap<&'static str, OpProfile>,
    runs: BTreeMap<&'static str, OpRuns>,
}

#[derive(Default)]
struct OpRuns {
    seconds: Vec<f64>,
    steps: u64,
    macs: u64,
}

impl OpTimes {
    /// Takes up what the engine has counted since the last call; `counts` is false for a run that is not measured.
    pub fn take(&mut self, engine: &Engine, network: NetworkIndex, counts: bool) {
        for now in engine.profile(network) {
            let before = self.before.insert(now.op, now.clone());
            let (seconds, steps, macs) =
                before.map_or((0.0, 0, 0), |before| (before.seconds, before.steps, before.macs));
            if counts {
                let op = self.runs.entry(now.op).or_default();
                op.seconds.push(now.seconds - seconds);
                (op.steps, op.macs) = (now.steps - steps, now.macs - macs);
            }
        }
    }

    /// `{network, steps, gmacs_per_second, ops}`, each op's seconds at the median of the runs, the longest first.
    pub fn value(&mut self, engine: &Engine, network: NetworkIndex) -> Value {
        let in_a_run = |(&op, runs): (&&'static str, &mut OpRuns)| {
            let seconds = median(&mut runs.seconds);
            OpProfile { op, steps: runs.steps, seconds, macs: runs.macs }
        };
        let mut ops: Vec<OpProfile> = self.runs.iter_mut().map(in_a_run).collect();
        ops.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        let mut all = OpProfile { op: "all", steps: 0, seconds: 0.0, macs: 0 };
        for op in &ops {
            all.seconds += op.seconds;
            all.macs += op.macs;
        }
        json!({
            "network": engine.graph(network).name,
            "steps": engine.plan(network).steps.len(),
            "gmacs_per_second": round(all.gmacs_per_second()),
            "ops": ops.iter().map(op_value).collect::<Vec<_>>(),
        })
    }
}

fn op_value(op: &OpProfile) -> Value {
    json!({
        "op": op.op,
        "steps": op.steps,
        "seconds": round(op.seconds),
        "macs": op.macs,
        "gmacs_per_second": round(op.gmacs_per_second()),
    })
}

/// Writes each network's and op's share of the peak beside its rate.
pub(super) fn add_shares(value: &mut Value, peak: &Peak) {
    let peak = peak.gmacs_per_second();
    let share = |value: &mut Value| {
        let rate = value["gmacs_per_second"].as_f64().unwrap_or(0.0);
        value["share_of_peak"] = json!(round(rate / peak));
    };
    for network in value["networks"].as_array_mut().into_iter().flatten() {
        share(network);
        network["ops"].as_array_mut().into_iter().flatten().for_each(share);
    }
    value["peak_gmacs_per_second"] = json!(round(peak));
}
