//! Profiles of the boards that plantain knows: data, never behaviour.
//!
//! Enters: the TOML files in `profiles/`, embedded at build time, or a file of the operator's own. Leaves: checked
//! [`Board`]s with defaults for budget and threads and the figures that an estimate needs. Nothing here looks at the
//! machine it runs on.
//!
//! ```
//! let board = plantain_boards::find("rpi-zero2w")?;
//! assert_eq!(board.ram_bytes, 512 << 20);
//! assert_eq!(board.defaults.threads, 4);
//! assert!(plantain_boards::find("rpi-zero3").unwrap_err().to_string().contains("rpi-zero2w"));
//! # Ok::<(), plantain_boards::BoardError>(())
//! ```

mod find;
mod profile;
mod size;
mod validate;

use std::path::PathBuf;

pub use find::{all, find, load};
pub use profile::{
    Accelerator, Board, Cpu, Defaults, Memory, Qemu, Sensors, Source, Storage, StorageClass,
};

/// Why there is no board.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// No profile has this name.
    #[error("there is no board {name:?}; {suggestion}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The nearest names, and where the list is.
        suggestion: String,
    },
    /// The file cannot be read.
    #[error("board file {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no profile.
    #[error("board file {origin}: {reason}")]
    Parse {
        /// File name.
        origin: String,
        /// One sentence: the key and what is wrong with it.
        reason: String,
    },
    /// The profile contradicts itself.
    #[error("board file {origin}: {reason}")]
    Invalid {
        /// File name.
        origin: String,
        /// One sentence: what is wrong and what would be right.
        reason: String,
    },
}
