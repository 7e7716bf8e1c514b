"""Small checkpoints that go into git: all trained networks and the basis in one file, to go on from on another machine.

Matrices lie there in 12 bits with a scale a row (an error of about -65 dB, far below what int8 costs later), the rest in f16.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .decode import REFINER
from .enlarge import CHECKPOINT as ENLARGER
from .net import LATENT_CHANNELS
from .paths import BASIS, WORK
from .text import CHECKPOINT as ENCODER

GENERATOR, LATENT = "generator.", "basis."
OTHERS = {"refiner.": REFINER, "enlarger.": ENLARGER, "encoder.": ENCODER}
PACKED, SCALE, LARGE, TOP = ".packed", ".scale", 4096, 2047


def pack(name: str, value: Tensor) -> dict[str, Tensor]:
    """One tensor as it is stored. `value` has rows along its first axis."""
    if value.ndim < 2 or value.numel() < LARGE or value.numel() % 2:
        return {name: value.half().contiguous()}
    rows = value.float().reshape(value.shape[0], -1).numpy()
    scale = np.maximum(np.abs(rows).max(1), 1e-12) / TOP
    whole = (np.rint(rows / scale[:, None]).astype(np.int32) + TOP + 1).reshape(-1, 2).astype(np.uint32)
    word = whole[:, 0] | whole[:, 1] << 12
    data = np.stack([word & 255, word >> 8 & 255, word >> 16], 1).astype(np.uint8)
    return {name + PACKED: torch.from_numpy(data), name + SCALE: torch.from_numpy(scale.astype(np.float32))}


def unpack(data: Tensor, scale: Tensor, shape: list[int]) -> Tensor:
    """The inverse for packed tensors."""
    data = data.numpy().astype(np.uint32)
    word = data[:, 0] | data[:, 1] << 8 | data[:, 2] << 16
    whole = np.stack([word & 4095, word >> 12], 1).astype(np.float32).reshape(len(scale), -1) - (TOP + 1)
    return torch.from_numpy(whole * scale.numpy()[:, None]).reshape(shape)


def keep(checkpoint: Path, out: Path, note: str) -> None:
    """Writes the average weights of `checkpoint` with the work folder's basis and other networks."""
    parts = {prefix: torch.load(path, weights_only=True) for prefix, path in {GENERATOR: checkpoint, **OTHERS}.items() if path.exists()}
    whole = {prefix + k: v for prefix, part in parts.items() for k, v in part["ema"].items()}
    tensors = {k: v for name, value in whole.items() for k, v in pack(name, value).items()}
    basis = np.load(BASIS)
    tensors |= {LATENT + k: torch.from_numpy(np.ascontiguousarray(basis[k][..., :LATENT_CHANNELS] if k != "mu" else basis[k], np.float32))
                for k in ("mu", "V", "w")}
    out.parent.mkdir(parents=True, exist_ok=True)
    shapes = {name: list(value.shape) for name, value in whole.items() if name + PACKED in tensors}
    configs = {prefix: part["config"] for prefix, part in parts.items() if part.get("config")}
    save_file(tensors, out, {"configs": json.dumps(configs), "images": str(parts[GENERATOR].get("images", 0)), "note": note,
                             "shapes": json.dumps(shapes)})
    print(f"keep: {out}, {out.stat().st_size} bytes", flush=True)


def restore(source: Path) -> Path:
    """Fills the work folder with basis and other networks, and gives a checkpoint for `teacher --start`, `evaluate` and `export`."""
    WORK.mkdir(parents=True, exist_ok=True)
    with safe_open(source, "pt") as file:
        notes = file.metadata()
        stored = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
    shapes = json.loads(notes.get("shapes", "{}"))
    tensors = {k: v.float() for k, v in stored.items() if not k.endswith((PACKED, SCALE))}
    tensors |= {name: unpack(stored[name + PACKED], stored[name + SCALE], shape) for name, shape in shapes.items()}

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    configs, out = json.loads(notes["configs"]), WORK / f"{source.stem}.pt"
    np.savez(BASIS, **{k: v.numpy() for k, v in part(LATENT).items()})
    for prefix, path in {GENERATOR: out, **OTHERS}.items():
        if weights := part(prefix):
            sizes = {"config": configs[prefix]} if prefix in configs else {}
            torch.save({"ema": weights, "images": int(notes["images"]) if path == out else 0, **sizes}, path)
        else:
            path.unlink(missing_ok=True)
    print(f"restore: {out}; {notes['note']}", flush=True)
    return out
