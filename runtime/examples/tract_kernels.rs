//! Measures this crate's integer kernels beside tract-linalg's, in one run:
//! `cargo run --release --package plantain --example tract_kernels`.
//!
//! Both multiply the same int8 matrices, checked against each other, and both have packed their weights
//! beforehand. tract's activations are packed beforehand too, and once more with the packing timed; ours are read
//! as the rows that the layer before left. On AVX2, AVX-VNNI and AVX-512 VNNI ours win at every shape, so the table
//! of kernels holds none of tract's; its AMX kernels win on large matrices where a server's CPU has AMX.

#[cfg(target_arch = "x86_64")]
#[path = "tract/mod.rs"]
mod tract;

#[cfg(target_arch = "x86_64")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    side_by_side::main()
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    eprintln!("tract-linalg is compared on x86-64 only: run this on such a machine");
}

#[cfg(target_arch = "x86_64")]
mod side_by_side {
    use std::time::Instant;

    use plantain::kernel::{GemmI8Args, Kernels};
    use plantain::pack::panel::PanelShape;
    use tract_data::internal::TractResult;
    use tract_linalg::mmm::MatMatMul;
    use tract_linalg::mmm_routines::declared;

    use crate::tract::Product;

    /// Rows (activations), inner length, outputs: layers of Stable Diffusion's UNet and of the bundled model.
    const SHAPES: [(usize, usize, usize); 7] = [
        (4096, 2880, 320),
        (1024, 5760, 640),
        (256, 11520, 1280),
        (4096, 1280, 320),
        (4096, 320, 320),
        (64, 1152, 256),
        (16, 256, 1024),
    ];

    pub(super) fn main() -> Result<(), Box<dyn std::error::Error>> {
        for (rows, k, outputs) in SHAPES {
            println!("{rows} x {k} x {outputs}, GMAC/s at the median");
            let act: Vec<i8> = (0..rows * k).map(|i| (i * 31 % 255) as i8).map(kept).collect();
            let weights: Vec<i8> =
                (0..outputs * k).map(|i| (i * 17 % 253) as i8).map(kept).collect();
            let mut expected = None;
            for kernels in Kernels::available().iter().filter(|kernels| kernels.name != "scalar") {
                let (acc, rate) = ours(kernels, &act, &weights, rows, k, outputs);
                println!("  {:<30} {rate:7.1}", kernels.gemm_i8.name);
                let expected = expected.get_or_insert(acc.clone());
                assert_eq!(&acc, expected, "{} differs", kernels.gemm_i8.name);
            }
            let expected = expected.ok_or("this CPU runs none of the vector kernels")?;
            for mmm in declared().map(|routine| (routine.make)()).filter(|mmm| int8(&**mmm)) {
                let name = mmm.name().to_owned();
                let (acc, alone, packed) = theirs(mmm, &act, &weights, rows, k, outputs)?;
                assert_eq!(acc, expected, "{name} differs");
                println!("  tract {name:<24} {alone:7.1}, {packed:7.1} with packing");
            }
        }
        Ok(())
    }

    /// Whether this CPU runs it, as a product of int8 matrices.
    fn int8(mmm: &dyn MatMatMul) -> bool {
        mmm.runnable()
            && mmm.name().contains("_i32_")
            && mmm.arch().is_some()
            && mmm.nr() > 1
            && mmm.packings().len() > 1
    }

    /// Int8 here is -127 to 127.
    fn kept(value: i8) -> i8 {
        value.max(-127)
    }

    /// Median seconds of one call.
    fn seconds(mut call: impl FnMut()) -> f64 {
        call();
        let start = Instant::now();
        let mut times = Vec::new();
        while start.elapsed().as_secs_f64() < 0.5 || times.len() < 5 {
            let before = Instant::now();
            call();
            times.push(before.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }

    fn gmacs(rows: usize, k: usize, outputs: usize, seconds: f64) -> f64 {
        (rows * k * outputs) as f64 / seconds / 1e9
    }

    fn ours(
        kernels: &Kernels,
        act: &[i8],
        weights: &[i8],
        rows: usize,
        k: usize,
        outputs: usize,
    ) -> (Vec<i32>, f64) {
        let (gemm, shape) = (kernels.gemm_i8, PanelShape::matmul(outputs, k));
        let panels = shape.pack_i8(weights);
        let sums = shape.sums(&panels);
        let act: Vec<u8> =
            act.iter().map(|value| (*value as u8).wrapping_add(gemm.act_offset)).collect();
        let (panel_bytes, stride) = (shape.groups() * 64, shape.panels() * 16);
        let mut acc = vec![0i32; rows * stride];
        let time = seconds(|| {
            for panel in (0..shape.panels()).step_by(gemm.tile_panels) {
                for row in (0..rows).step_by(36) {
                    (gemm.run)(GemmI8Args {
                        act: &act[row * k..],
                        act_stride: k,
                        rows: 36.min(rows - row),
                        weights: &panels[panel * panel_bytes..],
                        weights_stride: panel_bytes,
                        panels: gemm.tile_panels.min(shape.panels() - panel),
                        groups: shape.groups(),
                        acc: &mut acc[row * stride + panel * 16..],
                        acc_stride: stride,
                        accumulate: false,
                    });
                }
            }
        });
        for row in acc.chunks_exact_mut(stride) {
            for (value, sum) in row.iter_mut().zip(&sums) {
                *value -= i32::from(gemm.act_offset) * sum;
            }
        }
        (acc, gmacs(rows, k, outputs, time))
    }

    /// The sums as rows of outputs, the rate of the product alone, and with its activations packed first.
    fn theirs(
        mmm: Box<dyn MatMatMul>,
        act: &[i8],
        weights: &[i8],
        rows: usize,
        k: usize,
        outputs: usize,
    ) -> TractResult<(Vec<i32>, f64, f64)> {
        let mut product = Product::new(mmm, act, weights, [rows, k, outputs])?;
        product.run()?;
        let alone = seconds(|| product.run().expect("it has run once"));
        let packed = seconds(|| product.pack_and_run().expect("it has run once"));
        let rate = |seconds| gmacs(rows, k, outputs, seconds);
        Ok((product.sums()?, rate(alone), rate(packed)))
    }
}
