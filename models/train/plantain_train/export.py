"""Trained weights -> a folder in diffusers' layout that `plantain-pack` takes: ONNX networks, tokenizer, scheduler, index."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from . import text
from .latent import PatchBasis
from .net import (
    LATENT_CHANNELS,
    LATENT_SIDE,
    TEXT_TOKENS,
    TEXT_WIDTH,
    Generator,
    Refiner,
)

OPSET = 17
COMPONENTS = {"text_encoder": "text encoder", "unet": "denoiser", "vae_decoder": "decoder", "refiner": "refiner", "enlarger": "enlarger"}


@dataclass
class Card:
    """What the pack must say about itself."""

    name: str
    words: list[str]
    styles: dict[str, str]
    default_style: str
    backgrounds: list[str] = field(default_factory=list)
    colours: list[str] = field(default_factory=list)
    synonyms: list[str] = field(default_factory=list)
    steps: int = 1
    guidance_scale: float = 1.0
    licence: str = "MIT OR Apache-2.0"
    provenance: str = ""


def export(out: Path, generator: Generator, refiner: Refiner, basis: PatchBasis, keep: list[int], card: Card,
           enlarger: Refiner | None = None) -> None:
    """Writes the whole folder anew. `keep`: vocabulary rows of MiniLM to hold (see `text.pruned_vocabulary`)."""
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    folder = text.model_folder()
    tokenizer = text.write_tokenizer(folder, keep, out / "tokenizer")
    ids, mask = (torch.from_numpy(a) for a in text.encode(tokenizer, ["a red apple, 3d render"]))
    latent = torch.randn(1, LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE, generator=torch.Generator().manual_seed(0))
    side = 8 * LATENT_SIDE
    refiner.freeze(side // 2)
    with torch.no_grad():
        network(out / "text_encoder", text.trained(keep), {"input_ids": ids, "attention_mask": mask}, "last_hidden_state")
        network(out / "unet", generator, {
            "sample": latent, "timestep": torch.zeros(1), "encoder_hidden_states": torch.randn(1, TEXT_TOKENS, TEXT_WIDTH),
            "attention_mask": mask}, "out_sample")
        network(out / "vae_decoder", basis, {"latent_sample": latent}, "sample")
        network(out / "refiner", refiner, {"sample": torch.rand(1, 3, side, side) * 2 - 1}, "out_sample")
        if enlarger is not None:
            enlarger.freeze(side)
            network(out / "enlarger", enlarger, {"sample": torch.rand(1, 3, 2 * side, 2 * side) * 2 - 1}, "out_sample")
            enlarger.frozen_phase = None
    refiner.frozen_phase = None
    write_json(out / "scheduler" / "scheduler_config.json", scheduler_config())
    write_json(out / "model_index.json", model_index(card, refiner))
    (out / "OPS.txt").write_text(describe(out))


def network(folder: Path, net: nn.Module, inputs: dict[str, Tensor], output: str) -> None:
    """One network with static shapes, checked."""
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    torch.onnx.export(net.eval(), tuple(inputs.values()), str(path), input_names=list(inputs), output_names=[output],
                      dynamo=False, opset_version=OPSET, do_constant_folding=True)
    model = simplify(onnx.load(path))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Removes Identity nodes and turns Constant nodes into initializers, so that importers meet only real operators."""
    graph = model.graph
    renamed: dict[str, str] = {}
    nodes = []
    outputs = {o.name for o in graph.output}
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        if node.op_type == "Identity" and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
        elif node.op_type == "Constant":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(next(a.t for a in node.attribute if a.name == "value"))
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return onnx.shape_inference.infer_shapes(model)


def scheduler_config() -> dict[str, object]:
    """diffusers' names where they exist; keys that start with `plantain_` are ours."""
    return {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": 1000,
        "prediction_type": "sample",
        "shift": 1.0,
        "plantain_time": "ascending",
        "plantain_timestep_input": "time",
        "plantain_doc": "Rectified flow with x0 prediction. Time t runs from 0 (noise) to 1 (picture): x_t = t*x0 + (1-t)*noise, noise "
                        "standard normal. With N steps t_i = i/N; the denoiser gets t_i itself (float, 0..1, not multiplied by "
                        "num_train_timesteps) and predicts x0; then x <- x + (t_{i+1}-t_i) * (x0-x) / (1-t_i). One step gives x = x0. In "
                        "diffusers' direction sigma = 1-t.",
    }


def model_index(card: Card, refiner: Refiner) -> dict[str, object]:
    """diffusers' index plus the `plantain` keys."""
    side = 8 * LATENT_SIDE
    return {
        "_class_name": "PlantainPipeline",
        "_name_or_path": card.name,
        "text_encoder": ["plantain", "MiniLM"], "tokenizer": ["transformers", "BertTokenizer"],
        "unet": ["plantain", "Generator"], "vae_decoder": ["plantain", "PatchBasis"],
        "refiner": ["plantain", "Refiner"], "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "plantain": {
            "name": card.name,
            "chain": ["text_encoder(input_ids, attention_mask) -> last_hidden_state",
                      "unet(sample, timestep, encoder_hidden_states, attention_mask) -> out_sample, once a step",
                      "vae_decoder(latent_sample) -> sample", "refiner(sample) -> out_sample",
                      "enlarger(sample) -> out_sample, if there is one, for pictures of twice the size"],
            "latent_shape": [LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE],
            "latent_scaling_factor": 1.0,
            "decoded_size": [side, side], "sizes": [[2 * side, 2 * side]],
            "image_range": [-1.0, 1.0], "image_doc": "byte = round((clamp(value, -1, 1) + 1) * 127.5), ties to even",
            "default_steps": card.steps, "default_guidance_scale": card.guidance_scale,
            "max_tokens": TEXT_TOKENS,
            "text_padding": "[CLS] words [SEP], cut to max_tokens keeping [SEP], padded on the right with [PAD] (id 0) to exactly max_tokens; "
                            "attention_mask is 1 for tokens, 0 for padding; both networks ignore masked positions",
            "lower_case": True,
            "style_template": "{prompt}, {style}",
            "styles": card.styles,
            "default_style": card.default_style,
            "backgrounds": card.backgrounds, "colours": card.colours,
            "words": card.words, "synonyms": card.synonyms,
            "licence": card.licence, "provenance": card.provenance,
        },
    }


def describe(folder: Path) -> str:
    """Operators with counts, inputs and outputs of every network."""
    lines = []
    for name, role in COMPONENTS.items():
        path = folder / name / "model.onnx"
        if not path.exists():
            continue
        model = onnx.load(path)
        graph = model.graph
        values = sum(int(np.prod(t.dims)) for t in graph.initializer)
        counts = Counter(n.op_type for n in graph.node)
        lines.append(f"{name}/model.onnx ({role}): opset {model.opset_import[0].version}, {len(graph.node)} nodes, "
                     f"{values} constant values, {path.stat().st_size} bytes")
        for kind, values_info in (("in ", graph.input), ("out", graph.output)):
            for v in values_info:
                t = v.type.tensor_type
                shape = [d.dim_value or d.dim_param for d in t.shape.dim]
                lines.append(f"  {kind} {v.name}: {onnx.TensorProto.DataType.Name(t.elem_type).lower()} {shape}")
        lines.append("  ops " + ", ".join(f"{op} {n}" for op, n in sorted(counts.items())))
        for node in graph.node:
            if node.op_type in ("Conv", "Resize", "DepthToSpace", "Split", "Concat", "ReduceSum", "Gather"):
                attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
                lines.append(f"    {node.op_type} {node.name}: {attributes}")
        lines.append("")
    return "\n".join(lines)


def write_json(path: Path, value: object) -> None:
    """Indented, so that people can read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
