//! Tensors into the pack, in execution order.

use std::io::{self, Read};
use std::path::Path;

use plantain::pack::{Metadata, Pack, TensorType};
use sha2::{Digest, Sha256};

use super::PackingError;
use super::golden::GoldenRun;
use crate::quantise::{Quantised, StoredData, StoredTensor};
use crate::write::{PackWriter, execution_order};

/// Writes tables, weights, golden runs.
pub fn write(
    path: &Path,
    quantised: &[Quantised],
    tables: &[StoredTensor],
    golden: &[GoldenRun],
    metadata: &Metadata,
) -> Result<Pack, PackingError> {
    let mut writer = PackWriter::create(path)?;
    for table in tables {
        put(&mut writer, table)?;
    }
    for network in quantised {
        writer.page()?;
        let order = execution_order([&network.graph])
            .map_err(|fault| PackingError::Fit { network: "graph", problem: fault.to_string() })?;
        for name in order {
            if let Some(tensor) = network.tensors.iter().find(|tensor| tensor.name == name) {
                put(&mut writer, tensor)?;
            }
        }
    }
    writer.page()?;
    for tensor in golden.iter().flat_map(|run| &run.tensors) {
        put(&mut writer, tensor)?;
    }
    Ok(writer.finish(metadata)?)
}

fn put(writer: &mut PackWriter, tensor: &StoredTensor) -> Result<(), PackingError> {
    let (dtype, bytes): (TensorType, &[u8]) = match &tensor.data {
        StoredData::I8(values) => (TensorType::I8, bytemuck::cast_slice(values)),
        StoredData::U8(values) => (TensorType::U8, values),
        StoredData::F16(values) => (TensorType::F16, bytemuck::cast_slice(values)),
        StoredData::F32(values) => (TensorType::F32, bytemuck::cast_slice(values)),
        StoredData::I32(values) => (TensorType::I32, bytemuck::cast_slice(values)),
    };
    Ok(writer.tensor(&tensor.name, dtype, &tensor.shape, bytes)?)
}

/// A file's hash as 64 hexadecimal digits.
pub fn sha256_file(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = std::fs::File::open(path)?;
    let mut block = vec![0; 1 << 16];
    loop {
        match file.read(&mut block)? {
            0 => break,
            count => hasher.update(&block[..count]),
        }
    }
    Ok(plantain::hash::hex(&hasher.finalize()))
}
