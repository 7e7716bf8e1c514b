//! What the CPU can do, and which table that means.

use super::{Kernels, reference};
use std::sync::OnceLock;

/// The environment variable that overrides the choice, for tests: a table's name.
pub const OVERRIDE: &str = "PLANTAIN_KERNELS";

/// Why there is no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// No such table for this architecture, or the CPU lacks what it needs.
    #[error("there are no kernels `{name}` for this CPU; it can run {available}")]
    Unavailable {
        /// What was asked for.
        name: String,
        /// What there is, best first.
        available: String,
    },
}

/// A table and the test of what it needs.
pub(super) type Native = (&'static Kernels, fn() -> bool);

/// The tables of this architecture, best first, each with the test of what it needs.
#[cfg(target_arch = "x86_64")]
const NATIVE: &[Native] = super::x86_64::TABLES;
#[cfg(target_arch = "aarch64")]
const NATIVE: &[Native] = super::aarch64::TABLES;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const NATIVE: &[Native] = &[];

impl Kernels {
    /// The tables that this CPU can run, best first; the last one is the scalar reference.
    pub fn available() -> &'static [&'static Kernels] {
        static TABLES: OnceLock<Vec<&'static Kernels>> = OnceLock::new();
        TABLES.get_or_init(|| {
            let mut tables: Vec<&'static Kernels> =
                NATIVE.iter().filter(|(_, runs)| runs()).map(|&(table, _)| table).collect();
            tables.push(&reference::KERNELS);
            tables
        })
    }

    /// The table of this name.
    ///
    /// # Errors
    /// [`KernelError::Unavailable`] with the names that would work.
    pub fn by_name(name: &str) -> Result<&'static Kernels, KernelError> {
        let tables = Self::available();
        tables.iter().copied().find(|table| table.name == name).ok_or_else(|| {
            let names: Vec<&str> = tables.iter().map(|table| table.name).collect();
            KernelError::Unavailable { name: name.to_owned(), available: names.join(", ") }
        })
    }

    /// The best table for this CPU, or the one that [`OVERRIDE`] names.
    ///
    /// # Errors
    /// [`KernelError::Unavailable`] if the override names another.
    pub fn chosen() -> Result<&'static Kernels, KernelError> {
        match std::env::var(OVERRIDE) {
            Ok(name) => Self::by_name(&name),
            Err(_) => Ok(Self::available()[0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_found_by_name_and_an_unknown_one_names_the_others() {
        for table in Kernels::available() {
            assert_eq!(Kernels::by_name(table.name).map(|found| found.name), Ok(table.name));
        }
        let error = Kernels::by_name("avx9000").map(|table| table.name).unwrap_err().to_string();
        assert!(error.contains("avx9000") && error.contains("scalar"), "{error}");
    }
}
