//! One side's figures, and their medians.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

/// What one side took in its turns.
pub struct Side {
    /// As printed.
    pub name: &'static str,
    cpu_seconds: Vec<f64>,
    wall_seconds: Vec<f64>,
    peak_rss_bytes: u64,
    kernels: String,
    peak_gmacs_per_second: f64,
    ops: BTreeMap<String, OpTurns>,
}

/// One kind of op, turn by turn.
#[derive(Default)]
struct OpTurns {
    seconds: Vec<f64>,
    gmacs: f64,
}

/// One kind of op, or all together, in one run.
pub struct OpMedians {
    /// The op's name.
    pub name: String,
    /// Wall seconds of all its steps in a run.
    pub seconds: f64,
    /// Billions of multiply-adds; 0 where none are counted.
    pub gmacs: f64,
    /// Of the largest int8 peak of all turns.
    pub share_of_peak: f64,
}

impl Side {
    /// Nothing measured yet.
    pub fn new(name: &'static str) -> Self {
        Side {
            name,
            cpu_seconds: Vec::new(),
            wall_seconds: Vec::new(),
            peak_rss_bytes: 0,
            kernels: String::new(),
            peak_gmacs_per_second: 0.0,
            ops: BTreeMap::new(),
        }
    }

    /// Adds a turn: `cpu_seconds` and `wall_seconds` by run, `peak_rss_bytes`; from plantain its profile too.
    ///
    /// # Errors
    /// If there are no seconds.
    pub fn take(&mut self, turn: &Value) -> Result<()> {
        let list = |key: &str| -> Result<Vec<f64>> {
            let values = turn[key].as_array().with_context(|| format!("no {key} were measured"))?;
            Ok(values.iter().filter_map(Value::as_f64).collect())
        };
        self.cpu_seconds.extend(list("cpu_seconds")?);
        self.wall_seconds.extend(list("wall_seconds")?);
        self.peak_rss_bytes =
            self.peak_rss_bytes.max(turn["peak_rss_bytes"].as_u64().unwrap_or_default());
        self.profile(&turn["bench"]);
        Ok(())
    }

    fn profile(&mut self, bench: &Value) {
        let Some(peak) = bench["peak_gmacs_per_second"].as_f64() else { return };
        self.kernels = bench["kernels"].as_str().unwrap_or_default().to_owned();
        self.peak_gmacs_per_second = self.peak_gmacs_per_second.max(peak);
        let mut turn: BTreeMap<String, [f64; 2]> = BTreeMap::new();
        let networks = bench["networks"].as_array().into_iter().flatten();
        for op in networks.flat_map(|network| network["ops"].as_array().into_iter().flatten()) {
            let name = op["op"].as_str().unwrap_or_default();
            let work = [op["seconds"].as_f64(), op["macs"].as_f64().map(|macs| macs / 1e9)];
            for name in [name, "all"] {
                let sums = turn.entry(name.to_owned()).or_default();
                sums.iter_mut().zip(work).for_each(|(sum, x)| *sum += x.unwrap_or_default());
            }
        }
        for (name, [seconds, gmacs]) in turn {
            let op = self.ops.entry(name).or_default();
            op.seconds.push(seconds);
            op.gmacs = gmacs;
        }
    }

    /// Median of a run.
    pub fn cpu_seconds(&self) -> f64 {
        median(&self.cpu_seconds)
    }

    /// Median of a run.
    pub fn wall_seconds(&self) -> f64 {
        median(&self.wall_seconds)
    }

    /// Largest of all turns.
    pub fn peak_rss_bytes(&self) -> u64 {
        self.peak_rss_bytes
    }

    /// Name of the kernels that ran.
    pub fn kernels(&self) -> &str {
        &self.kernels
    }

    /// Largest of the turns.
    pub fn peak_gmacs_per_second(&self) -> f64 {
        self.peak_gmacs_per_second
    }

    /// Kinds of op, the longest first.
    pub fn ops(&self) -> Vec<OpMedians> {
        let medians = |(name, op): (&String, &OpTurns)| {
            let seconds = median(&op.seconds);
            let share_of_peak = op.gmacs / seconds.max(1e-12) / self.peak_gmacs_per_second;
            OpMedians { name: name.clone(), seconds, gmacs: op.gmacs, share_of_peak }
        };
        let mut ops: Vec<OpMedians> = self.ops.iter().map(medians).collect();
        ops.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        ops
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn medians_are_over_all_runs_and_shares_of_the_largest_peak() {
        let mut side = Side::new("plantain");
        for (seconds, peak) in [(2.0, 100.0), (4.0, 50.0), (1.0, 200.0)] {
            let ops = json!([
                {"op": "conv_i8", "seconds": seconds, "macs": 100_000_000_000u64},
                {"op": "softmax", "seconds": 0.0, "macs": 0},
            ]);
            let bench = json!({
                "kernels": "avx512_vnni",
                "runs": 1,
                "peak_gmacs_per_second": peak,
                "networks": [{"ops": ops}],
            });
            side.take(&json!({
                "cpu_seconds": [seconds, seconds],
                "wall_seconds": [seconds],
                "peak_rss_bytes": (seconds * 1e6) as u64,
                "bench": bench,
            }))
            .unwrap();
        }
        assert_eq!((side.cpu_seconds(), side.peak_rss_bytes()), (2.0, 4_000_000));
        let ops = side.ops();
        let conv = ops.iter().find(|op| op.name == "conv_i8").unwrap();
        assert_eq!((conv.seconds, conv.gmacs, conv.share_of_peak), (2.0, 100.0, 0.25));
        assert!(side.take(&json!({})).is_err());
    }
}
