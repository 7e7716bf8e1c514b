"""Small checkpoints that go into git: generator, basis and refiner in one f16 safetensors file, to go on from in another session."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .decode import REFINER
from .net import LATENT_CHANNELS
from .paths import BASIS, WORK

GENERATOR, REFINING, LATENT = "generator.", "refiner.", "basis."


def keep(checkpoint: Path, out: Path, note: str) -> None:
    """Writes the average weights of `checkpoint` with the work folder's basis and refiner."""
    saved = torch.load(checkpoint, weights_only=True)
    tensors = {GENERATOR + k: v.half().contiguous() for k, v in saved["ema"].items()}
    tensors |= {REFINING + k: v.half().contiguous() for k, v in torch.load(REFINER, weights_only=True)["ema"].items()}
    basis = np.load(BASIS)
    tensors |= {LATENT + k: torch.from_numpy(np.ascontiguousarray(basis[k][..., :LATENT_CHANNELS] if k != "mu" else basis[k], np.float32))
                for k in ("mu", "V", "w")}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out, {"config": json.dumps(saved.get("config", {})), "images": str(saved.get("images", 0)), "note": note})
    print(f"keep: {out}, {out.stat().st_size} bytes", flush=True)


def restore(source: Path) -> Path:
    """Fills the work folder with basis and refiner, and gives a checkpoint for `teacher --start`, `evaluate` and `export`."""
    WORK.mkdir(parents=True, exist_ok=True)
    with safe_open(source, "pt") as file:
        notes = file.metadata()
        tensors = {k: file.get_tensor(k).float() for k in file.keys()}

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    np.savez(BASIS, **{k: v.numpy() for k, v in part(LATENT).items()})
    torch.save({"ema": part(REFINING)}, REFINER)
    out = WORK / f"{source.stem}.pt"
    torch.save({"ema": part(GENERATOR), "config": json.loads(notes["config"]), "images": int(notes["images"])}, out)
    print(f"restore: {out}; {notes['note']}", flush=True)
    return out
