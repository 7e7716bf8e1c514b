//! Signatures: minisign's, over the whole file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use minisign_verify::Signature;

use super::{Pack, PackFault};

/// The longest signature file, in bytes.
const SIGNATURE_BYTES_MAX: u64 = 16 << 10;

/// A minisign public key.
#[derive(Clone, Debug)]
pub struct PublicKey(minisign_verify::PublicKey);

impl PublicKey {
    /// A key from a `.pub` file's text, or from its second line alone.
    ///
    /// # Errors
    /// [`PackFault::Key`].
    pub fn parse(text: &str) -> Result<Self, PackFault> {
        let text = text.trim();
        let key = if text.contains('\n') {
            minisign_verify::PublicKey::decode(text)
        } else {
            minisign_verify::PublicKey::from_base64(text)
        };
        key.map(PublicKey).map_err(|error| PackFault::Key(error.to_string()))
    }
}

/// Checks the signature beside a pack against all of its bytes.
pub(super) fn check(pack: &Pack, path: &Path, key: &PublicKey) -> Result<(), PackFault> {
    let beside = beside(path);
    let length = match std::fs::metadata(&beside) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(PackFault::NoSignature(beside));
        }
        Err(error) => return Err(error.into()),
    };
    if length > SIGNATURE_BYTES_MAX {
        let reason = format!("{length} bytes is longer than {SIGNATURE_BYTES_MAX}");
        return Err(PackFault::Signature(reason));
    }
    let text = std::fs::read_to_string(&beside)?;
    let refused = |error: minisign_verify::Error| PackFault::Signature(error.to_string());
    let signature = Signature::decode(&text).map_err(refused)?;
    let mut verifier = key.0.verify_stream(&signature).map_err(refused)?;
    pack.read_through(|piece| verifier.update(piece)).map_err(|error| *error.fault)?;
    verifier.finalize().map_err(refused)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".minisig");
    name.into()
}
