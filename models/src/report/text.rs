//! Reports as text.

use std::fmt;

use super::{NetworkReport, PackingReport, sizes};

impl fmt::Display for PackingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for network in &self.networks {
            writeln!(f, "{network}")?;
        }
        if let Some(pruning) = &self.pruning {
            writeln!(f, "pruned: {pruning}")?;
            for part in &pruning.parts {
                writeln!(f, "  {} of {} left, {}/{}", part.kept, part.of, part.network, part.node)?;
            }
            writeln!(f)?;
        }
        writeln!(f, "pack: {} bytes", self.pack_bytes)
    }
}

impl fmt::Display for NetworkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.layers.iter().filter(|layer| layer.kept_f16.is_some()).count();
        writeln!(
            f,
            "{}: {:.1} dB, cosine {:.5}, largest error {:.3e} against float ({} samples, {})",
            self.network,
            self.outputs.snr_db,
            self.outputs.cosine,
            self.outputs.max,
            self.samples,
            sizes(self.binding.into()),
        )?;
        writeln!(
            f,
            "  {} bytes; {} layers in int8, {kept} in f16, {} tables in int8; {} norms or projections equalised",
            self.tensor_bytes,
            self.layers.len() - kept,
            self.int8_tables,
            self.equalised.len(),
        )?;
        if self.outputs.snr_db < self.snr_db_min {
            writeln!(
                f,
                "  below {} dB: more layers in f16 would cost more than their share allows; name them with --keep-f16",
                self.snr_db_min
            )?;
        }
        writeln!(
            f,
            "  {:>8} {:>9} {:>8} {:>9}  precision, layer",
            "alone dB", "inside dB", "cosine", "weights"
        )?;
        for layer in &self.layers {
            write!(
                f,
                "  {:>8.1} {:>9.1} {:>8.5} {:>9}  {}, {}",
                layer.alone.snr_db,
                layer.inside.snr_db,
                layer.inside.cosine,
                layer.weights,
                layer.precision,
                layer.node,
            )?;
            match &layer.kept_f16 {
                Some(reason) => writeln!(f, " ({reason})")?,
                None => writeln!(f)?,
            }
        }
        for attention in &self.attentions {
            write!(
                f,
                "  {:>8.1} {:>9.1} {:>8.5} {:>4} keys  {}, {}",
                attention.alone.snr_db,
                attention.inside.snr_db,
                attention.inside.cosine,
                attention.keys,
                attention.precision,
                attention.node,
            )?;
            match &attention.kept_float {
                Some(reason) => writeln!(f, " ({reason})")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}
