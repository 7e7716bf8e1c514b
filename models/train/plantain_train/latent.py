"""The latent: a linear 8x8-patch basis (PCA) of the 64 px image, partly whitened. Nothing in it is trained by gradient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .net import LATENT_CHANNELS

PATCH = 8


class PatchBasis(nn.Module):
    """64 px image [B, 3, 64, 64] in [-1, 1] <-> latent [B, 48, 8, 8]; `forward` decodes (a 1x1 convolution and a pixel shuffle)."""

    def __init__(self, mean: Tensor, vectors: Tensor, variances: Tensor) -> None:
        """`mean` [192], `vectors` [192, >= 48] (patch pixels ordered y, x, colour; columns sorted), `variances` of the columns."""
        super().__init__()
        vectors, variances = vectors[:, :LATENT_CHANNELS], variances[:LATENT_CHANNELS]
        scale = variances ** -0.25  # half-way to whitening: the large components keep some of their lead
        scale = scale / (variances * scale * scale).mean().sqrt()
        pixels = torch.arange(3 * PATCH * PATCH).view(PATCH, PATCH, 3).permute(2, 0, 1).reshape(-1)
        encode = (vectors * scale).t()[:, pixels].reshape(-1, 3, PATCH, PATCH)
        self.register_buffer("encode_weight", encode.contiguous())
        self.register_buffer("encode_bias", -(mean @ vectors) * scale)
        self.register_buffer("decode_weight", (vectors / scale)[pixels][:, :, None, None].contiguous())
        self.register_buffer("decode_bias", mean[pixels].contiguous())

    @classmethod
    def load(cls, path: Path) -> PatchBasis:
        """Reads an npz with mu, V (columns by falling variance) and w."""
        z = np.load(path)
        return cls(*(torch.from_numpy(np.ascontiguousarray(z[k], dtype=np.float32)) for k in ("mu", "V", "w")))

    def encode(self, image: Tensor) -> Tensor:
        """[B, 3, 64, 64] -> [B, 48, 8, 8]"""
        return nn.functional.conv2d(image, self.encode_weight, self.encode_bias, stride=PATCH)

    def forward(self, latent_sample: Tensor) -> Tensor:
        """[B, 48, 8, 8] -> [B, 3, 64, 64]"""
        return nn.functional.pixel_shuffle(nn.functional.conv2d(latent_sample, self.decode_weight, self.decode_bias), PATCH)
