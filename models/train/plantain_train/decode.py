"""Latents -> pictures, with the basis and the refiner, for sheets and for the judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .chain import to_bytes
from .latent import PatchBasis
from .net import Refiner, loaded
from .paths import BASIS, WORK
from .sheet import sheet

REFINER = WORK / "refiner.pt"


class Decoder:
    """Holds the basis and, if one is trained, the refiner."""

    def __init__(self) -> None:
        self.basis = PatchBasis.load(BASIS)
        self.refiner: Refiner | None = None
        if REFINER.exists():
            self.refiner = loaded(Refiner, torch.load(REFINER, weights_only=True))

    @torch.no_grad()
    def small(self, latents: Tensor) -> np.ndarray:
        """[B, 48, 8, 8] -> uint8 [B, 64, 64, 3]"""
        return to_bytes(self.basis(latents).numpy())

    @torch.no_grad()
    def whole(self, latents: Tensor) -> np.ndarray:
        """[B, 48, 8, 8] -> uint8 [B, 128, 128, 3], or 64 px without a refiner."""
        images = self.basis(latents)
        return to_bytes((images if self.refiner is None else self.refiner(images)).numpy())

    def sheet(self, latents: Tensor, labels: list[str], columns: int, path: Path) -> None:
        """Writes a contact sheet."""
        sheet(list(self.whole(latents)), labels, columns, path)
