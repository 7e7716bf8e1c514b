//! Where the time went, by kind of op.

/// Time and work of one kind of op, all runs since load together.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct OpProfile {
    /// The op's name as in the pack.
    pub op: &'static str,
    /// Steps that ran.
    pub steps: u64,
    /// Wall time of worker 0.
    pub seconds: f64,
    /// Multiply-adds.
    pub macs: u64,
}

impl OpProfile {
    /// Billions of multiply-adds a second; 0 for ops that count none.
    pub fn gmacs_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.macs as f64 / self.seconds / 1e9 } else { 0.0 }
    }
}
