//! The float half of a table, for one instruction set.

/// Defines, in the module that calls it, a function for every float field of
/// [`Kernels`](crate::kernel::Kernels), and `float_kernels(name, gemm_i8)` that makes the table.
///
/// `$lanes`: the instruction set's [`Lanes`](super::Lanes). `$features`: what it needs; the caller must offer the
/// table only where the CPU has all of them. `$rows x $panels`: the register tile of a float product; `$queries x $keys`: of attention, in 16 keys.
macro_rules! float_kernels {
    ($lanes:ty, $features:literal, $gemm_name:literal, $rows:literal x $panels:literal,
     attention: $queries:literal x $keys:literal) => {
        $crate::kernel::lanes::float_kernels! { @each $lanes, $features;
            fn load_f16(src: &[half::f16], dst: &mut [f32]);
            fn store_f16(src: &[f32], dst: &mut [half::f16]);
            fn unary(function: $crate::graph::Unary, values: &mut [f32]);
            fn binary(function: $crate::graph::Binary, a: &[f32], b: &[f32], out: &mut [f32]);
            fn binary_scalar(function: $crate::graph::Binary, values: &mut [f32], b: f32);
            fn scalar_binary(function: $crate::graph::Binary, a: f32, values: &mut [f32]);
            fn modulate(values: &mut [f32], scale: &[f32], shift: &[f32]);
            fn scale_shift(values: &mut [f32], scale: &[f32], shift: &[f32]);
            fn sum(values: &[f32]) -> f32;
            fn max_abs(values: $crate::kernel::Row<'_>) -> f32;
            fn max(values: &[f32]) -> f32;
            fn group_moments(
                row: &[f32], channels: usize, scratch: &mut [f32],
                out: &mut [$crate::kernel::Moments]
            );
            fn layer_norm(values: &mut [f32], gamma: &[f32], beta: Option<&[f32]>, eps: f32);
            fn rms_norm(values: &mut [f32], gamma: &[f32], eps: f32);
            fn softmax(values: &mut [f32]);
            fn quantise(values: $crate::kernel::Row<'_>, inverse: f32, offset: u8, out: &mut [u8]);
            fn accumulate_i8(
                acc: &[i32], sums: &[i32], offset: i32, scale: f32, first: bool, total: &mut [f32]
            );
            fn finish_i8(
                acc: &[i32], sums: &[i32], offset: i32, scales: &[f32],
                finish: &$crate::kernel::Finish<'_>, out: $crate::kernel::RowsMut<'_>
            );
            fn finish_f32(
                total: &[f32], finish: &$crate::kernel::Finish<'_>, out: $crate::kernel::RowsMut<'_>
            );
            fn vector_matrix(a: &[f32], b: $crate::kernel::Rows<'_>, out: &mut [f32]);
            fn depthwise(
                lines: &$crate::kernel::Lines<'_>, weight: &[half::f16], bias: Option<&[f32]>,
                out: &mut [f32]
            );
            fn pool(
                kind: $crate::graph::PoolKind, lines: &$crate::kernel::Lines<'_>, out: &mut [f32]
            );
            fn blend(a: &[f32], b: &[f32], weight: f32, out: &mut [f32]);
            fn quantise_keys(rows: &$crate::kernel::KeyRows<'_>, out: &mut [f32]);
            fn attention_i8(
                attention: &$crate::kernel::AttentionI8<'_>, gemm: &$crate::kernel::GemmI8,
                scratch: &mut [f32], out: $crate::kernel::RowsMut<'_>
            );
            fn resize_row(resize: &$crate::kernel::ResizeRow, row: &[f32], out: &mut [f32]);
        }
        $crate::kernel::lanes::float_kernels! { @tiled $lanes, $features, $rows, $panels;
            fn gemm_f16(args: $crate::kernel::GemmF16Args<'_>);
        }
        $crate::kernel::lanes::float_kernels! { @tiled $lanes, $features, $queries, $keys;
            fn attention(
                attention: &$crate::kernel::Attention<'_>, scratch: &mut [f32],
                out: $crate::kernel::RowsMut<'_>
            );
        }

        /// The table of this instruction set's float kernels and one integer product.
        const fn float_kernels(
            name: &'static str,
            gemm_i8: $crate::kernel::GemmI8,
        ) -> $crate::kernel::Kernels {
            $crate::kernel::Kernels {
                name, load_f16, store_f16, unary, binary, binary_scalar, scalar_binary, modulate,
                scale_shift, sum, max_abs, max, group_moments, layer_norm, rms_norm, softmax,
                quantise, gemm_i8, accumulate_i8, finish_i8, finish_f32,
                gemm_f16: $crate::kernel::GemmF16 {
                    name: $gemm_name,
                    tile_rows: $rows,
                    tile_panels: $panels,
                    run: gemm_f16,
                },
                vector_matrix, attention, quantise_keys, attention_i8, depthwise, pool, blend, resize_row,
            }
        }
    };
    (@each $lanes:ty, $features:literal;
     $(fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        $(
            fn $name($($arg: $type),*) $(-> $result)? {
                #[target_feature(enable = $features)]
                fn enabled($($arg: $type),*) $(-> $result)? {
                    $crate::kernel::lanes::$name::<$lanes>($($arg),*)
                }
                // SAFETY: this function is reached only through a table that is offered where the CPU has
                // the features.
                unsafe { enabled($($arg),*) }
            }
        )*
    };
    (@tiled $lanes:ty, $features:literal, $rows:literal, $panels:literal;
     $(fn $name:ident($($arg:ident: $type:ty),* $(,)?);)*) => {
        $(
            fn $name($($arg: $type),*) {
                #[target_feature(enable = $features)]
                fn enabled($($arg: $type),*) {
                    $crate::kernel::lanes::$name::<$lanes, $rows, $panels>($($arg),*)
                }
                // SAFETY: this function is reached only through a table that is offered where the CPU has
                // the features.
                unsafe { enabled($($arg),*) }
            }
        )*
    };
}
pub(in crate::kernel) use float_kernels;
