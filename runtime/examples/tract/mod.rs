//! One int8 product by a kernel of tract-linalg, which is what plantain's are held against.

use tract_data::internal::{Tensor, TractResult, anyhow};
use tract_linalg::mmm::{AsInputValue, FusedSpec, MMMInputFormat, MMMInputValue, MatMatMul};

/// `act [rows, k]` times `weights [outputs, k]` transposed, with the weights packed beforehand.
pub struct Product {
    kernel: Box<dyn MatMatMul>,
    weights: Box<dyn MMMInputValue>,
    act: Tensor,
    packed_act: Box<dyn MMMInputValue>,
    acc: Tensor,
    rows: usize,
    outputs: usize,
}

impl Product {
    /// Packs both operands.
    ///
    /// # Errors
    /// If the kernel packs no int8 matrices, or not these.
    pub fn new(
        kernel: Box<dyn MatMatMul>,
        act: &[i8],
        weights: &[i8],
        [rows, k, outputs]: [usize; 3],
    ) -> TractResult<Self> {
        let (pack_weights, pack_act) = packing(&*kernel)?;
        let act = Tensor::from_shape(&[rows, k], act)?;
        let weights =
            pack_weights.prepare_one(&Tensor::from_shape(&[outputs, k], weights)?, 1, 0)?;
        let packed_act = pack_act.prepare_one(&act, 1, 0)?;
        let acc = Tensor::zero::<i32>(&[rows, outputs])?;
        Ok(Product { kernel, weights, act, packed_act, acc, rows, outputs })
    }

    /// Multiplies.
    ///
    /// # Errors
    /// Those of the kernel.
    #[expect(unsafe_code, reason = "tract's way to run a product")]
    pub fn run(&mut self) -> TractResult<()> {
        // SAFETY: axes 1 and 0 of `acc` are the outputs and rows that `run` is told.
        let store = unsafe { self.kernel.c_view(Some(1), Some(0)) };
        // SAFETY: `acc` outlives the store, which is used in this call only.
        let store = unsafe { store.wrap(&self.acc.view_mut()) };
        let multiply = FusedSpec::AddMatMul {
            a: AsInputValue::Borrowed(&*self.weights),
            b: AsInputValue::Borrowed(&*self.packed_act),
            packing: 1,
        };
        let steps = [multiply, FusedSpec::Store(store)];
        // SAFETY: the CPU runs this kernel, and both operands were packed by its formats, `k` long.
        unsafe { self.kernel.run(self.outputs, self.rows, &steps) }
    }

    /// Packs the activations, as every product of new ones must, and multiplies.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn pack_and_run(&mut self) -> TractResult<()> {
        self.packed_act = packing(&*self.kernel)?.1.prepare_one(&self.act, 1, 0)?;
        self.run()
    }

    /// What was computed: `[rows, outputs]`.
    ///
    /// # Errors
    /// None that is known.
    pub fn sums(&self) -> TractResult<Vec<i32>> {
        Ok(self.acc.try_as_plain_ram()?.as_slice::<i32>()?.to_vec())
    }
}

/// The kernel's second packing, that of int8 operands.
fn packing(kernel: &dyn MatMatMul) -> TractResult<(&dyn MMMInputFormat, &dyn MMMInputFormat)> {
    let formats = kernel.packings().get(1);
    let (weights, act) = formats.ok_or_else(|| anyhow!("{} packs no int8", kernel.name()))?;
    Ok((&**weights, &**act))
}
