"""Fits the latent's basis: principal components of 8x8 patches of the 64 px pictures, on white and coloured grounds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from .concepts import BACKGROUNDS, styles
from .latent import PATCH
from .net import LATENT_CHANNELS
from .paths import BASIS, RENDERS, RENDERS_INDEX, WORK
from .pool import premultiplied


def patches(images: np.ndarray) -> np.ndarray:
    """f32 [N, 64, 64, 3] -> [N * 64, 192], pixels ordered y, x, colour."""
    count = len(images)
    return images.reshape(count, 8, PATCH, 8, PATCH, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, PATCH * PATCH * 3)


def fit(seed: int = 0) -> None:
    """Writes basis.npz."""
    index, renders, rng = json.loads(RENDERS_INDEX.read_text()), np.load(RENDERS, mmap_mode="r"), np.random.default_rng(seed)
    grounds = np.array([*BACKGROUNDS.values(), *[(255, 255, 255)] * 10], np.float32)
    rows = [i for i, entry in enumerate(index) if entry["style"] in styles()]
    pictures = np.stack([premultiplied(renders[i], 64) for i in rows]).astype(np.float32)
    ground = grounds[rng.integers(0, len(grounds), len(rows))][:, None, None]
    x = patches((pictures[..., :3] + (1 - pictures[..., 3:] / 255) * ground) / 127.5 - 1)
    mean = x.mean(0)
    variances, vectors = np.linalg.eigh(np.cov((x - mean).T))
    order = np.argsort(variances)[::-1]
    variances, vectors = variances[order], vectors[:, order]
    lost = variances[LATENT_CHANNELS:].sum()
    WORK.mkdir(parents=True, exist_ok=True)
    np.savez(BASIS, mu=mean, V=vectors, w=variances)
    print(f"basis: {len(rows)} pictures, {LATENT_CHANNELS} of {len(variances)} components keep {1 - lost / variances.sum():.4f} of the variance, "
          f"{10 * np.log10(4 * len(variances) / lost):.1f} dB", flush=True)


def adopt(source: Path) -> None:
    """Takes an existing basis."""
    WORK.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, BASIS)
    print(f"basis: adopted {source}", flush=True)
