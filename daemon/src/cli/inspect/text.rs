//! An inspection as a person reads it.

use std::fmt;

use plantain::pipeline::PipelineSpec;
use plantain::units::Bytes;

use super::summary::{Inspection, Network, Port};

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.path.display())?;
        let provenance = &self.provenance;
        line(f, "title", or(&provenance.title, "(none)"))?;
        line(f, "licence", or(&provenance.licence, "(not stated)"))?;
        if !provenance.origin.is_empty() {
            line(f, "origin", &provenance.origin)?;
        }
        line(f, "packed by", or(&provenance.packer, "(not stated)"))?;
        let sizes = format!(
            "{}: {} tensors, header {}, padding {}",
            Bytes(self.bytes),
            self.tensors,
            Bytes(self.header_bytes),
            Bytes(self.pad_bytes)
        );
        line(f, "size", sizes)?;
        line(f, "format", self.version)?;
        line(f, "hash", &self.hash)?;
        if let Some(sha256) = &self.sha256 {
            line(f, "sha256", sha256)?;
        }
        let checked = match (self.verified, self.signature_verified) {
            (true, true) => "every byte, signature",
            (true, false) => "every byte",
            (false, true) => "header, signature",
            (false, false) => "header (use --verify for every byte)",
        };
        line(f, "checked", checked)?;
        if !self.golden.is_empty() {
            let names: Vec<&str> = self.golden.keys().map(String::as_str).collect();
            line(f, "golden", names.join(", "))?;
        }
        if let Some(pruning) = &self.pruning {
            line(f, "pruned", pruning)?;
        }
        if let Some(pipeline) = &self.pipeline {
            pipeline_lines(f, pipeline)?;
        }
        self.networks.iter().try_for_each(|network| network_lines(f, network))
    }
}

fn or<'t>(text: &'t str, otherwise: &'t str) -> &'t str {
    if text.is_empty() { otherwise } else { text }
}

fn line(f: &mut fmt::Formatter<'_>, key: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "  {key:<10} {value}")
}

fn pipeline_lines(f: &mut fmt::Formatter<'_>, pipeline: &PipelineSpec) -> fmt::Result {
    let [width, height] = pipeline.size.default;
    let ([w0, h0], [w1, h1]) = (pipeline.size.min, pipeline.size.max);
    writeln!(f, "\npipeline")?;
    let range = if (w0, h0) == (w1, h1) {
        format!("{width}x{height} only")
    } else {
        format!(
            "{width}x{height}, from {w0}x{h0} to {w1}x{h1} in steps of {}",
            pipeline.size.multiple
        )
    };
    let larger = pipeline.size.enlarge.map(|factor| format!(", or {factor} times as large"));
    line(f, "picture", range + &larger.unwrap_or_default())?;
    line(f, "scheduler", format_args!("{:?}", pipeline.scheduler))?;
    line(f, "predicts", format_args!("{:?}", pipeline.prediction))?;
    let steps = format!("{}, guidance {}", pipeline.steps_default, pipeline.guidance_scale_default);
    line(f, "steps", steps)?;
    let tokenizer = &pipeline.tokenizer;
    line(
        f,
        "tokenizer",
        format_args!("{:?}, up to {} tokens", tokenizer.kind, tokenizer.tokens_max),
    )?;
    if !pipeline.styles.is_empty() {
        let names: Vec<&str> = pipeline.styles.iter().map(|style| &*style.name).collect();
        line(f, "styles", names.join(", "))?;
    }
    if !pipeline.words.is_empty() {
        line(f, "knows", format_args!("{} words", pipeline.words.len()))?;
    }
    Ok(())
}

fn ports(ports: &[Port]) -> String {
    let port = |port: &Port| format!("{} {} [{}]", port.name, port.dtype, port.shape.join(", "));
    ports.iter().map(port).collect::<Vec<_>>().join("; ")
}

fn network_lines(f: &mut fmt::Formatter<'_>, network: &Network) -> fmt::Result {
    writeln!(f, "\nnetwork {}", network.name)?;
    line(f, "in", ports(&network.inputs))?;
    line(f, "out", ports(&network.outputs))?;
    let nodes: usize = network.ops.values().sum();
    let ops: Vec<String> = network.ops.iter().map(|(op, count)| format!("{op} {count}")).collect();
    line(f, "ops", format_args!("{nodes}: {}", ops.join(", ")))?;
    let weights = format!("{} in {}", network.parameters, Bytes(network.bytes));
    line(f, "weights", weights)?;
    for precision in &network.precision {
        let share = precision.parameters as f64 * 100.0 / network.parameters.max(1) as f64;
        let text = format!("{} layers, {share:.1}% of the weights", precision.layers);
        line(f, precision.name, text)?;
    }
    if let Some(cosine) = network.cosine {
        line(f, "cosine", format_args!("{cosine:.5} against float"))?;
    }
    if !network.attentions.is_empty() {
        let int8 = network.attentions.iter().filter(|a| a.precision == "int8").count();
        let float = network.attentions.len() - int8;
        line(f, "attention", format_args!("{int8} with int8 products, {float} in float"))?;
    }
    let wide = network.layers.iter().map(|layer| layer.name.chars().count()).max().unwrap_or(0);
    for layer in &network.layers {
        let shape: Vec<String> = layer.shape.iter().map(ToString::to_string).collect();
        write!(
            f,
            "    {:<wide$}  {:<10} {:<4} [{}], {}",
            layer.name,
            layer.op,
            layer.precision,
            shape.join(", "),
            Bytes(layer.bytes)
        )?;
        if let Some(error) = layer.error {
            write!(f, ", error {error:.4}")?;
        }
        if let Some(reason) = &layer.kept_f16 {
            write!(f, ", kept f16: {reason}")?;
        }
        writeln!(f)?;
    }
    // The others have few keys: nobody measured them.
    for attention in network.attentions.iter().filter(|attention| attention.error.is_some()) {
        let name = &attention.name;
        write!(
            f,
            "    {name:<wide$}  attention  {:<5} {} heads",
            attention.precision, attention.heads
        )?;
        match (&attention.kept_float, attention.error) {
            (Some(reason), _) => writeln!(f, ", kept float: {reason}")?,
            (None, Some(error)) => writeln!(f, ", error {error:.4}")?,
            (None, None) => writeln!(f)?,
        }
    }
    Ok(())
}
