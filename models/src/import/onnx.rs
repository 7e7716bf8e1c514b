//! Reading an ONNX file: its bytes, its external data, and which input dimensions are free.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use plantain::graph::Binding;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimValue;
use tract_onnx::pb::{ModelProto, TensorProto, type_proto};
use tract_onnx::prelude::Framework;

use super::ImportError;
use crate::lower::FreeDims;

/// What a free dimension of an input stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Batch,
    Height,
    Width,
}

/// An ONNX model in memory, its weights included.
pub(super) struct OnnxFile {
    pub path: PathBuf,
    pub proto: ModelProto,
    pub free: FreeDims,
    /// Input (by index in the graph), axis, role.
    roles: Vec<(usize, usize, Role)>,
}

impl OnnxFile {
    /// Reads a model. `sizes` fixes free dimensions by their symbol.
    pub(super) fn open(path: &Path, sizes: &BTreeMap<String, usize>) -> Result<Self, ImportError> {
        let path = if path.is_dir() { path.join("model.onnx") } else { path.to_owned() };
        let read = |source| ImportError::Read { path: path.clone(), source };
        let mut file = File::open(&path).map_err(read)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(read)?;
        let not_onnx = || ImportError::NotOnnx { path: path.clone() };
        let mut proto = tract_onnx::onnx()
            .proto_model_for_read(&mut bytes.as_slice())
            .map_err(|_| not_onnx())?;
        drop(bytes);
        if proto.graph.as_ref().is_none_or(|graph| graph.output.is_empty()) {
            return Err(not_onnx());
        }
        load_external(&path, &mut proto)?;
        drop_rounding(&mut proto);
        let mut onnx = OnnxFile { path, proto, free: FreeDims::default(), roles: Vec::new() };
        onnx.check_ops()?;
        onnx.find_free(sizes)?;
        Ok(onnx)
    }

    fn check_ops(&self) -> Result<(), ImportError> {
        let known = tract_onnx::onnx();
        for node in self.proto.graph.iter().flat_map(|graph| &graph.node) {
            let op = &node.op_type;
            let subgraph = matches!(op.as_str(), "If" | "Loop" | "Scan");
            if known.op_register.0.contains_key(op) && !subgraph {
                continue;
            }
            let name = match (&node.name, node.output.first()) {
                (name, _) if !name.is_empty() => name.clone(),
                (_, Some(output)) => output.clone(),
                _ => op.clone(),
            };
            let op = match node.domain.as_str() {
                "" | "ai.onnx" => op.clone(),
                domain => format!("{domain}.{op}"),
            };
            return Err(ImportError::UnknownOp { node: name, instead: nearest(&op), op });
        }
        Ok(())
    }

    fn find_free(&mut self, sizes: &BTreeMap<String, usize>) -> Result<(), ImportError> {
        let Some(graph) = &mut self.proto.graph else { return Ok(()) };
        let initializers: std::collections::HashSet<String> =
            graph.initializer.iter().map(|t| t.name.clone()).collect();
        let mut by_symbol: HashMap<String, Role> = HashMap::new();
        for (index, input) in graph.input.iter_mut().enumerate() {
            if initializers.contains(&input.name) {
                continue;
            }
            let Some(type_proto::Value::TensorType(tensor)) =
                input.r#type.as_mut().and_then(|t| t.value.as_mut())
            else {
                continue;
            };
            let dims = tensor.shape.get_or_insert_default().dim.as_mut_slice();
            let rank = dims.len();
            for (axis, dim) in dims.iter_mut().enumerate() {
                let symbol = match &dim.value {
                    Some(DimValue::DimValue(n)) if *n > 0 => continue,
                    Some(DimValue::DimParam(symbol)) => symbol.clone(),
                    _ => String::new(),
                };
                if let Some(&size) = sizes.get(&symbol) {
                    dim.value = Some(DimValue::DimValue(size as i64));
                    continue;
                }
                let role = match (by_symbol.get(&symbol), rank, axis) {
                    (Some(&role), ..) if !symbol.is_empty() => role,
                    (_, _, 0) => Role::Batch,
                    (_, 4, 2) => Role::Height,
                    (_, 4, 3) => Role::Width,
                    _ => {
                        let (input, name) = (input.name.clone(), symbol);
                        return Err(ImportError::FreeDimension { input, axis, name });
                    }
                };
                by_symbol.insert(symbol, role);
                match role {
                    Role::Batch => self.free.batch = true,
                    Role::Height => self.free.height = true,
                    Role::Width => self.free.width = true,
                }
                self.roles.push((index, axis, role));
            }
        }
        Ok(())
    }

    /// Gives the free dimensions these sizes.
    pub(super) fn bind(&mut self, binding: Binding) {
        let Some(graph) = &mut self.proto.graph else { return };
        for &(input, axis, role) in &self.roles {
            let value = match role {
                Role::Batch => binding.batch,
                Role::Height => binding.height,
                Role::Width => binding.width,
            };
            if let Some(type_proto::Value::TensorType(tensor)) =
                graph.input[input].r#type.as_mut().and_then(|t| t.value.as_mut())
                && let Some(shape) = &mut tensor.shape
            {
                shape.dim[axis].value = Some(DimValue::DimValue(i64::from(value)));
            }
        }
    }

    /// The binding that a network of fixed sizes stands for: batch of its first input, height and
    /// width of its first image.
    pub(super) fn fixed_binding(&self) -> Binding {
        let mut binding = Binding { batch: 1, height: 1, width: 1 };
        let Some(graph) = &self.proto.graph else { return binding };
        for input in &graph.input {
            if let Some(type_proto::Value::TensorType(tensor)) =
                input.r#type.as_ref().and_then(|t| t.value.as_ref())
                && let Some(shape) = &tensor.shape
                && let [b, _, h, w] = shape.dim.as_slice()
            {
                let size = |dim: &tract_onnx::pb::tensor_shape_proto::Dimension| match dim.value {
                    Some(DimValue::DimValue(n)) => u32::try_from(n).unwrap_or(1).max(1),
                    _ => 1,
                };
                binding = Binding { batch: size(b), height: size(h), width: size(w) };
                break;
            }
        }
        binding
    }
}

/// What to use in place of an op that is not known.
fn nearest(op: &str) -> String {
    match op {
        "If" | "Loop" | "Scan" => "export the network with its control flow unrolled".to_owned(),
        "ConvTranspose" => "Resize followed by Conv is".to_owned(),
        "GridSample" | "RoiAlign" => "Resize with whole factors is".to_owned(),
        _ if op.contains('.') => {
            "export the network with operators of the ai.onnx domain only".to_owned()
        }
        _ => "export the network with opset 17, where it decomposes to known operators".to_owned(),
    }
}

/// Takes QuantizeLinear followed by DequantizeLinear out of the flow of activations: lowering
/// starts from the float network, and quantises it anew. Weights stay what their integers say.
fn drop_rounding(proto: &mut ModelProto) {
    let Some(graph) = &mut proto.graph else { return };
    let rounded: HashMap<String, String> = graph
        .node
        .iter()
        .filter(|node| node.op_type == "QuantizeLinear")
        .filter_map(|node| Some((node.output.first()?.clone(), node.input.first()?.clone())))
        .collect();
    let constants: std::collections::HashSet<&str> =
        graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    for node in graph.node.iter_mut().filter(|node| node.op_type == "DequantizeLinear") {
        let source = node.input.first().and_then(|input| rounded.get(input));
        if let Some(source) = source.filter(|source| !constants.contains(source.as_str())) {
            node.op_type = "Identity".to_owned();
            node.input = vec![source.clone()];
            node.attribute.clear();
        }
    }
}

/// Moves initializers that lie in other files into the model.
fn load_external(path: &Path, proto: &mut ModelProto) -> Result<(), ImportError> {
    const EXTERNAL: i32 = 1;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut files: HashMap<PathBuf, File> = HashMap::new();
    let tensors = proto.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    for tensor in tensors.filter(|tensor| tensor.data_location == Some(EXTERNAL)) {
        let value = |key: &str| {
            tensor.external_data.iter().find(|entry| entry.key == key).map(|e| e.value.clone())
        };
        let location = PathBuf::from(value("location").unwrap_or_default());
        let name = tensor.name.clone();
        let full = folder.join(&location);
        let problem = |problem: String| ImportError::ExternalData {
            path: path.to_owned(),
            tensor: name.clone(),
            file: full.clone(),
            problem,
        };
        let inside = location.components().all(|c| matches!(c, Component::Normal(_)));
        if !inside || location.as_os_str().is_empty() {
            return Err(problem("is not a plain path below the model's folder".to_owned()));
        }
        let number = |key: &str| value(key).and_then(|v| v.parse::<u64>().ok());
        let offset = number("offset").unwrap_or(0);
        if !files.contains_key(&full) {
            let file = File::open(&full).map_err(|e| problem(format!("cannot be opened ({e})")))?;
            files.insert(full.clone(), file);
        }
        let Some(file) = files.get_mut(&full) else { continue };
        let available = file.metadata().map_or(0, |m| m.len());
        let length = number("length").unwrap_or_else(|| available.saturating_sub(offset));
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end > available) {
            return Err(problem(format!(
                "has {available} bytes where {length} from byte {offset} are needed"
            )));
        }
        let mut data = vec![0; length as usize];
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut data))
            .map_err(|e| problem(format!("cannot be read ({e})")))?;
        take(tensor, data);
    }
    Ok(())
}

fn take(tensor: &mut TensorProto, data: Vec<u8>) {
    tensor.raw_data = data;
    tensor.data_location = None;
    tensor.external_data.clear();
}
