"""Rectified flow with x0 prediction: x_t = t * x0 + (1 - t) * noise, t from 0 (noise) to 1 (picture)."""

from __future__ import annotations

import torch
from torch import Tensor

from .net import LATENT_CHANNELS, LATENT_SIDE, Generator

CONTRAST, CONTRAST_MEAN = 0.2, 0.9  # of latents, whose total variance is 1; the mean over pictures


def noise(count: int, seed: int) -> Tensor:
    """Standard normal latents that depend on the seed only."""
    return torch.randn(count, LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE, generator=torch.Generator().manual_seed(seed))


def training_times(count: int, generator: torch.Generator, start_share: float = 0.0) -> Tensor:
    """Times of a training batch: logit-normal, a little towards the noise; a share of them at the very start (t = 0).

    Pure noise to picture is the one step that the bundled model takes. Where a caption determines the picture, as icons of
    a named style do, training at t = 0 teaches it without a teacher.
    """
    t = torch.sigmoid(torch.randn(count, generator=generator) - 0.3)
    return torch.where(torch.rand(count, generator=generator) < start_share, 0.0, t)


def per_sample(t: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1]"""
    return t[:, None, None, None]


def relative_error(predicted: Tensor, clean: Tensor) -> Tensor:
    """Squared error of each sample against the contrast of its picture, so that pale pictures count as much as black ones. [B]"""
    contrast = clean.var((2, 3)).mean(1)
    return ((predicted - clean) ** 2).mean((1, 2, 3)) / (CONTRAST + contrast) * (CONTRAST + CONTRAST_MEAN)


def flow_loss(predicted: Tensor, clean: Tensor, t: Tensor) -> Tensor:
    """The velocity's relative squared error, bounded near the picture."""
    return (relative_error(predicted, clean) / (1 - t).clamp(min=0.1) ** 2).mean()


@torch.no_grad()
def sample(net: Generator, states: Tensor, mask: Tensor, start: Tensor, steps: int, guidance: float = 1.0,
           empty: tuple[Tensor, Tensor] | None = None, keep: tuple[int, ...] = ()) -> Tensor | list[Tensor]:
    """Euler steps from `start`; with guidance w the prediction is w * conditional + (1 - w) * unconditional.

    `empty` are the states [1, T, 384] and the mask [1, T] of the empty prompt, the unconditional text. Gives the last latent, or with
    `keep` the latents after those numbers of steps, then the last one.
    """
    x, kept, count = start, [], len(start)
    if guidance != 1.0:
        if empty is None:
            raise ValueError(f"guidance {guidance} needs the states of the empty prompt; give `empty`")
        states, mask = (torch.cat([given, of_empty.expand_as(given)]) for given, of_empty in zip((states, mask), empty, strict=True))
    for i in range(steps):
        t, t_next = i / steps, (i + 1) / steps
        if guidance == 1.0:
            clean = net(x, torch.full((count,), t), states, mask)
        else:
            with_text, without = net(x.repeat(2, 1, 1, 1), torch.full((2 * count,), t), states, mask).chunk(2)
            clean = without + guidance * (with_text - without)
        x = x + (t_next - t) / (1 - t) * (clean - x)
        if i + 1 in keep:
            kept.append(x)
    return [*kept, x] if keep else x
