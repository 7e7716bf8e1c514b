"""The refiner: learns to turn the decoded 64 px image into the 128 px picture, with noise on the latent so that it also repairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .concepts import BACKGROUNDS, percentile
from .latent import PatchBasis
from .loop import Plan, Setup, Step, mixed_precision, run
from .net import Refiner, loaded
from .paths import BASIS, RENDERS, RENDERS_INDEX, WORK

CHECKPOINT = WORK / "refiner.pt"
CROP, SHIFT, NOISE = 64, 6, 0.2
HELD_PERCENT = 5
GROUNDS = torch.tensor([*BACKGROUNDS.values(), *[(255, 255, 255)] * 10], dtype=torch.float32) / 255


def rows(held: bool) -> np.ndarray:
    """Numbers of the renders that training sees, or of those that it never sees (by concept)."""
    index = json.loads(RENDERS_INDEX.read_text())
    return np.array([i for i, entry in enumerate(index) if (percentile(f"refine:{entry['label']}") < HELD_PERCENT) == held])


def composed(rgba: np.ndarray, grounds: Tensor) -> Tensor:
    """uint8 [B, 128, 128, 4] on colours [B, 3] -> [B, 3, 128, 128] in [-1, 1]"""
    a = torch.from_numpy(rgba.astype(np.float32) / 255).permute(0, 3, 1, 2)
    return (a[:, :3] * a[:, 3:] + (1 - a[:, 3:]) * grounds[:, :, None, None]) * 2 - 1


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical differences."""
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def charbonnier(x: Tensor) -> Tensor:
    """A smooth absolute value."""
    return ((x * x + 0.01).sqrt() - 0.1).mean()


def varied(renders: np.ndarray, chosen: np.ndarray, batch: int, rng: np.random.Generator, shift: int) -> Tensor:
    """Random ones of the chosen renders on random grounds, flipped and shifted by up to `shift` pixels: [batch, 3, S, S]."""
    picked = np.sort(rng.choice(chosen, batch, replace=False))
    image = composed(renders[picked], GROUNDS[rng.integers(0, len(GROUNDS), batch)])
    if rng.random() < 0.5:
        image = image.flip(3)
    side, (dy, dx) = image.shape[3], rng.integers(0, 2 * shift + 1, 2)
    return F.pad(image, (shift,) * 4, mode="replicate")[:, :, dy:dy + side, dx:dx + side]


def noisy(latent: Tensor, rng: np.random.Generator) -> Tensor:
    """With noise of a random strength a sample, as the generator's errors."""
    strength = torch.from_numpy(rng.random((len(latent), 1, 1, 1)).astype(np.float32))
    return latent + torch.randn_like(latent) * strength * NOISE


def likeness(ours: Tensor, real: Tensor) -> Tensor:
    """The loss of both stages: values and edges."""
    loss = charbonnier(ours - real)
    for mine, theirs in zip(edges(ours), edges(real), strict=True):
        loss = loss + charbonnier(mine - theirs)
    return 10 * loss


def setup(batch: int) -> Setup:
    """The step function's maker (see loop.run)."""

    def for_worker(worker: int, steps_done: int) -> Step:
        renders, chosen, basis = np.load(RENDERS, mmap_mode="r"), rows(held=False), PatchBasis.load(BASIS)
        rng = np.random.default_rng(3 + 1000 * worker + steps_done)

        def step(net: Callable[..., Tensor], _: int) -> tuple[Tensor, dict[str, float]]:
            image = varied(renders, chosen, batch, rng, SHIFT)
            latent = noisy(basis.encode(F.avg_pool2d(image, 2)), rng)
            small, (y, x) = basis(latent), rng.integers(0, 5, 2) * 8
            small = small[:, :, y:y + CROP // 2, x:x + CROP // 2]
            image = image[:, :, 2 * y:2 * y + CROP, 2 * x:2 * x + CROP]
            with mixed_precision():
                refined = net(small).float()
            return likeness(refined, image), {"psnr": float(psnr(refined.detach(), image).mean())}

        return step

    return for_worker


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """[B, 3, H, W] in [-1, 1] -> dB [B]"""
    return 10 * torch.log10(4 / ((a.clamp(-1, 1) - b) ** 2).mean((1, 2, 3)).clamp(min=1e-9))


def train(stop_at: float, start: Path | None = None, batch: int = 32, workers: int = 2, compiled: bool = False) -> None:
    """Trains until `stop_at`, then measures on concepts that it never saw. A given `start` is begun with anew."""
    torch.manual_seed(0)
    if start is not None:
        CHECKPOINT.unlink(missing_ok=True)
    source = start or CHECKPOINT
    net = loaded(Refiner, torch.load(source, weights_only=True)) if source.exists() else Refiner()
    if start is not None:
        measure(net)
    saved = run(Plan("refine", CHECKPOINT, stop_at, batch=batch, rate=1.5e-3, warm_up=150, decay=0.5, weight_decay=0.01, clip=0.5,
                     ema=0.995, workers=workers, compiled=compiled), net, setup(batch))
    net.load_state_dict(saved["ema"])
    measure(net)


@torch.no_grad()
def measure(net: Refiner, count: int = 128) -> tuple[float, float]:
    """Prints and gives mean PSNR to the real 128 px picture on held-out concepts: bilinear enlargement, refined."""
    renders, basis = np.load(RENDERS, mmap_mode="r"), PatchBasis.load(BASIS)
    held = rows(held=True)[:count]
    image = composed(renders[held], torch.ones(len(held), 3))
    small = basis(basis.encode(F.avg_pool2d(image, 2)))
    plain = psnr(F.interpolate(small, scale_factor=2.0, mode="bilinear"), image).mean().item()
    refined = psnr(net.eval()(small), image).mean().item()
    print(f"refine: held-out concepts, n {len(held)}: enlarged {plain:.2f} dB, refined {refined:.2f} dB", flush=True)
    return plain, refined
