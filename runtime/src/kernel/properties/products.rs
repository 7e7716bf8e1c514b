//! Properties of matrix products and their epilogues.

use super::pointwise::FUNCTIONS;
use super::{Draw, Stored, oracle, over, same, same_f16};
use crate::kernel::{
    Finish, GemmF16Args, GemmI8Args, Kernels, Residual, RowMut, Rows, RowsMut, reference,
};
use proptest::prelude::{any, prop};

pub fn gemm_i8(table: &Kernels) {
    let gemm = table.gemm_i8;
    let rows =
        prop::sample::select(vec![1usize, 2, 3, 4, 5, 7, 11, 12, 13, 16, 25, 31, 32, 33, 40, 70]);
    over!(200, |(rows in rows, panels in 1usize..6, groups in 0usize..40, lines in 1usize..4,
                 tight in any::<bool>(), extreme in any::<bool>(), accumulate in any::<bool>(),
                 seed in any::<u64>())| {
        let mut draw = Draw::new(seed);
        // Overlapping rows, or rows with a gap; panels with groups that this call leaves out.
        let act_stride = if tight { 4 } else { 4 * groups + 8 };
        let weights_stride = 64 * (groups * lines + 3);
        let acc_stride = panels * 16 + 16 * (seed % 2) as usize;
        let starts: Vec<usize> = (0..lines).map(|_| (draw.bits() % 300) as usize).collect();
        let mut int8 = || if extreme { 127 * (1 - 2 * (draw.bits() % 2) as i8) } else { draw.int8() };
        let act: Vec<u8> = (0..300 + (rows - 1) * act_stride + 4 * groups)
            .map(|_| (int8() as u8).wrapping_add(gemm.act_offset))
            .collect();
        let weights: Vec<i8> = (0..panels * weights_stride).map(|_| int8()).collect();
        let before: Vec<i32> =
            (0..rows * acc_stride).map(|_| draw.bits() as i32 >> 8).collect();
        let run = |gemm: &dyn Fn(GemmI8Args<'_>)| {
            let mut acc = before.clone();
            gemm(GemmI8Args {
                act: &act, act_stride, rows, weights: &weights, weights_stride, panels, groups,
                acc: &mut acc, acc_stride, accumulate,
            });
            acc
        };
        let signed = gemm.act_offset == 0;
        let of_one = if signed { reference::gemm_signed } else { reference::gemm_unsigned };
        assert_eq!(run(&gemm.run), run(&of_one));
        let of_lines =
            if signed { reference::gemm_signed_lines } else { reference::gemm_unsigned_lines };
        assert_eq!(
            run(&|args| (gemm.run_lines)(args, &starts)),
            run(&|args| of_lines(args, &starts))
        );
    });
}

pub fn epilogues(table: &Kernels) {
    over!(400, |(rows in 0usize..20, columns in 1usize..150, which in 0usize..24, then in 0usize..48, scaled in any::<bool>(),
                 biased in any::<bool>(), residual in 0usize..4, first in any::<bool>(), seed in any::<u64>())| {
        let mut draw = Draw::new(seed);
        let stride = columns.div_ceil(16) * 16;
        let acc: Vec<i32> = (0..rows * stride).map(|_| draw.bits() as i32 >> 4).collect();
        let sums: Vec<i32> = (0..stride).map(|_| draw.bits() as i32 >> 14).collect();
        let offset = if seed % 2 == 0 { 128 } else { 0 };
        let (weight_scale, bias) = (draw.floats(columns, 0.01), draw.floats(columns, 2.0));
        let stored = Stored::new(&mut draw, rows * (columns + 1), 3.0, residual == 1);
        let finish = Finish {
            rows,
            columns,
            stride,
            weight_scale: scaled.then_some(&weight_scale[..]),
            bias: biased.then_some(&bias[..]),
            activation: FUNCTIONS.get(which).copied(),
            residual: match residual {
                0 => None,
                1 | 2 => Some(Residual::Apart(Rows { data: stored.row(), stride: columns + 1 })),
                _ => Some(Residual::Output),
            },
            then: FUNCTIONS.get(then).copied(),
        };
        let scales = draw.floats(rows, 1e-5);

        let total = draw.floats(rows * stride, 100.0);
        let (mut got, mut expected) = (total.clone(), total.clone());
        (table.accumulate_i8)(&acc, &sums, offset, 1e-5, first, &mut got);
        (oracle().accumulate_i8)(&acc, &sums, offset, 1e-5, first, &mut expected);
        same(&got, &expected, "accumulate_i8 of a tile");

        let stride = columns + 2;
        let (before, halves) = (draw.floats(rows * stride, 9.0), draw.halves(rows * stride, 9.0));
        let run = |table: &Kernels| {
            let [mut a, mut b] = [(); 2].map(|()| before.clone());
            let out = RowsMut { data: RowMut::F32(&mut a), stride };
            (table.finish_i8)(&acc, &sums, offset, &scales, &finish, out);
            let out = RowsMut { data: RowMut::F32(&mut b), stride };
            (table.finish_f32)(&total, &finish, out);
            [a, b].concat()
        };
        same(&run(table), &run(oracle()), "finish");

        let run = |table: &Kernels| {
            let [mut a, mut b] = [(); 2].map(|()| halves.clone());
            let out = RowsMut { data: RowMut::F16(&mut a), stride };
            (table.finish_i8)(&acc, &sums, offset, &scales, &finish, out);
            let out = RowsMut { data: RowMut::F16(&mut b), stride };
            (table.finish_f32)(&total, &finish, out);
            [a, b].concat()
        };
        same_f16(&run(table), &run(oracle()), "finish to f16");
    });
}

pub fn gemm_f16(table: &Kernels) {
    let rows = prop::sample::select(vec![1usize, 2, 5, 6, 7, 11, 12, 13, 25]);
    over!(100, |(rows in rows, panels in 1usize..6, k in 0usize..40, tight in any::<bool>(),
                 accumulate in any::<bool>(), seed in any::<u64>())| {
        let mut draw = Draw::new(seed);
        let act_stride = if tight { 3 } else { k + 2 };
        let weights_stride = 16 * (k + 3);
        let acc_stride = panels * 16 + 16 * (seed % 2) as usize;
        let act = draw.floats((rows - 1) * act_stride + k, 4.0);
        let weights = draw.halves(panels * weights_stride, 1.0);
        let before = draw.floats(rows * acc_stride, 9.0);
        let run = |table: &Kernels| {
            let mut acc = before.clone();
            (table.gemm_f16.run)(GemmF16Args {
                act: &act, act_stride, rows, weights: &weights, weights_stride, panels, k,
                acc: &mut acc, acc_stride, accumulate,
            });
            acc
        };
        same(&run(table), &run(oracle()), "gemm_f16");
    });
}

pub fn vector_matrix(table: &Kernels) {
    over!(64, |(k in 0usize..20, n in 1usize..150, gap in 0usize..3, as_f16 in any::<bool>(),
                seed in any::<u64>())| {
        let mut draw = Draw::new(seed);
        let a = draw.floats(k, 2.0);
        let stored = Stored::new(&mut draw, k * (n + gap), 2.0, as_f16);
        let b = Rows { data: stored.row(), stride: n + gap };
        let (mut got, mut expected) = (vec![0.0; n], vec![0.0; n]);
        (table.vector_matrix)(&a, b, &mut got);
        (oracle().vector_matrix)(&a, b, &mut expected);
        same(&got, &expected, "vector_matrix");
    });
}
