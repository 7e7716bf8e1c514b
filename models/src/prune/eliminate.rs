//! The order in which a group's units go, and what is left of its consumers' weights.
//!
//! Optimal Brain Surgeon (Hassibi and Stork, 1993) by structures, as in ZipLM (Kurtic, Frantar and Alistarh, 2023): with `H` the
//! sum of squares of a consumer's inputs, removing its columns `B` costs at least `W_B' (H^-1_BB)^-1 W_B` in its output, and
//! the columns that stay make up for the rest. The unit that costs least goes first; then all is updated.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, Axis, s};

use super::groups::Group;
use super::normal::{Normal, stacked, unstacked};
use super::solve::{factorise, inverse, solve};
use crate::lower::FloatNetwork;
use crate::quantise::Layer;

/// Added to the diagonal, as a share of its mean.
const RIDGE: f64 = 1e-4;
/// Columns that go together at least, if their units have fewer: one by one is hardly better and takes longer.
const COLUMNS_TOGETHER: usize = 4;

/// A consumer's weights `[n, products]` and bias `[n]`.
pub type LayerWeights = (usize, Vec<f32>, Vec<f32>);

/// A group with fewer units.
#[derive(Clone, Debug)]
pub struct Level {
    /// Indices of units that are gone.
    pub removed: Vec<usize>,
    /// Of every consumer.
    pub weights: Vec<LayerWeights>,
}

struct Consumer {
    node: usize,
    /// Columns of each unit.
    columns: Vec<Vec<usize>>,
    /// `[k, k]`
    inverse: Array2<f64>,
    /// `[k, n]`
    weights: Array2<f64>,
}

impl Consumer {
    /// What the output loses without columns: the squared error, and what the rest takes over.
    fn loss(&self, columns: &[usize]) -> (f64, Array2<f64>) {
        let weights = self.weights.select(Axis(0), columns);
        let mut block = self.inverse.select(Axis(0), columns).select(Axis(1), columns);
        let mut shift = weights.clone();
        if factorise(&mut block) {
            solve(&block, &mut shift);
        }
        ((&weights * &shift).sum(), shift)
    }

    fn remove(&mut self, columns: &[usize]) {
        let (_, shift) = self.loss(columns);
        let tall = self.inverse.select(Axis(1), columns);
        general_mat_mul(-1.0, &tall, &shift, 1.0, &mut self.weights);
        let mut block = tall.select(Axis(0), columns);
        let mut wide = tall.t().to_owned();
        if factorise(&mut block) {
            solve(&block, &mut wide);
            general_mat_mul(-1.0, &tall, &wide, 1.0, &mut self.inverse);
        }
        for &column in columns {
            self.weights.row_mut(column).fill(0.0);
            self.inverse.slice_mut(s![column, ..]).fill(0.0);
            self.inverse.slice_mut(s![.., column]).fill(0.0);
        }
    }
}

/// Removes units one after another. Leaves the levels that the group names, most kept first. `normals` hold the inputs of the
/// group's consumers.
pub fn eliminate(network: &FloatNetwork, group: &Group, normals: &[&Normal]) -> Vec<Level> {
    let consumers = group.consumers.iter().zip(normals).enumerate();
    let consumers: Option<Vec<Consumer>> = consumers
        .map(|(index, (&node, normal))| {
            let layer = Layer::at(&network.graph, node)?;
            let taps = layer.products() / layer.c;
            let columns = |channels: &[usize]| {
                (0..taps).flat_map(|tap| channels.iter().map(move |c| tap * layer.c + c)).collect()
            };
            let mut gram = normal.gram.clone();
            let ridge = RIDGE * gram.diag().sum() / gram.nrows() as f64;
            gram.diag_mut().mapv_inplace(|x| x + ridge.max(f64::MIN_POSITIVE));
            let bias = layer.weight.bias.as_ref().map(|name| &network.weight(name).data[..]);
            Some(Consumer {
                node,
                columns: group.units.iter().map(|unit| columns(&unit.channels[index])).collect(),
                inverse: inverse(gram)?,
                weights: stacked(&network.weight(&layer.weight.panels).data, bias, layer.n),
            })
        })
        .collect();
    let Some(mut consumers) = consumers else { return Vec::new() };
    let width = consumers.iter().map(|consumer| consumer.columns[0].len()).max().unwrap_or(1);
    let together = (COLUMNS_TOGETHER / width.max(1)).max(1);
    let mut alive: Vec<usize> = (0..group.units.len()).collect();
    let mut removed = Vec::new();
    let mut levels = Vec::new();
    for &kept in &group.kept {
        while alive.len() > kept {
            let loss = |unit: usize| -> f64 {
                consumers.iter().map(|consumer| consumer.loss(&consumer.columns[unit]).0).sum()
            };
            let mut costs: Vec<(f64, usize)> = alive.iter().map(|&u| (loss(u), u)).collect();
            costs.sort_by(|a, b| a.0.total_cmp(&b.0));
            costs.truncate(together.min(alive.len() - kept));
            let gone: Vec<usize> = costs.into_iter().map(|(_, unit)| unit).collect();
            for consumer in &mut consumers {
                let columns: Vec<usize> =
                    gone.iter().flat_map(|&unit| consumer.columns[unit].clone()).collect();
                consumer.remove(&columns);
            }
            alive.retain(|unit| !gone.contains(unit));
            removed.extend(gone);
        }
        let weights = consumers.iter().map(|consumer| {
            let (weights, bias) = unstacked(&consumer.weights);
            (consumer.node, weights, bias)
        });
        levels.push(Level { removed: removed.clone(), weights: weights.collect() });
    }
    levels
}
