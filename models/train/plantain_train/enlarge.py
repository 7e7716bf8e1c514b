"""The second stage: the refiner's 128 px picture -> 256 px. A smaller net of the same form, behind the frozen refiner."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import render
from .concepts import percentile
from .decode import Decoder
from .latent import PatchBasis
from .loop import Plan, Setup, Step, mixed_precision, run
from .net import Refiner
from .paths import BASIS, RENDERS_LARGE, WORK
from .refine import HELD_PERCENT, composed, likeness, noisy, psnr, varied

CHECKPOINT = WORK / "enlarger.pt"
CONFIG = {"width": 48, "blocks": 2}
CROP, SHIFT = 128, 12


def rows(held: bool) -> np.ndarray:
    """Numbers of the large renders that training sees, or of those that it never sees (by concept, as the refiner's)."""
    index = json.loads(RENDERS_LARGE.with_suffix(".json").read_text())
    return np.array([i for i, entry in enumerate(index) if (percentile(f"refine:{entry['label']}") < HELD_PERCENT) == held])


def setup(batch: int) -> Setup:
    """The step function's maker (see loop.run)."""

    def for_worker(worker: int, steps_done: int) -> Step:
        renders, chosen, basis = np.load(RENDERS_LARGE, mmap_mode="r"), rows(held=False), PatchBasis.load(BASIS)
        refiner = Decoder().refiner
        if refiner is None:
            raise SystemExit("no refiner.pt in the work folder; run `python -m plantain_train refine` first")
        rng = np.random.default_rng(7 + 1000 * worker + steps_done)

        def step(net: Callable[..., Tensor], _: int) -> tuple[Tensor, dict[str, float]]:
            image = varied(renders, chosen, batch, rng, SHIFT)
            latent = noisy(basis.encode(F.avg_pool2d(image, 4)), rng)
            y, x = rng.integers(0, 5, 2) * 8
            side = CROP // 4
            with mixed_precision(), torch.no_grad():
                small = refiner(basis(latent)[:, :, y:y + side, x:x + side]).float()
            image = image[:, :, 4 * y:4 * y + CROP, 4 * x:4 * x + CROP]
            with mixed_precision():
                large = net(small).float()
            return likeness(large, image), {"psnr": float(psnr(large.detach(), image).mean())}

        return step

    return for_worker


def train(stop_at: float, batch: int = 16, workers: int = 2, compiled: bool = False) -> None:
    """Trains until `stop_at`, then measures on concepts that it never saw."""
    if not RENDERS_LARGE.exists():
        render.large()
    torch.manual_seed(0)
    net = Refiner(**CONFIG)
    saved = run(Plan("enlarge", CHECKPOINT, stop_at, batch=batch, rate=1.5e-3, warm_up=100, decay=0.5, weight_decay=0.01, clip=0.5,
                     ema=0.99, workers=workers, compiled=compiled), net, setup(batch))
    net.load_state_dict(saved["ema"])
    measure(net)


@torch.no_grad()
def measure(net: Refiner, count: int = 64) -> tuple[float, float]:
    """Prints and gives mean PSNR to the real 256 px picture on held-out concepts: the refined picture bilinearly enlarged, and by the net."""
    renders, decoder = np.load(RENDERS_LARGE, mmap_mode="r"), Decoder()
    held = rows(held=True)[:count]
    image = composed(renders[held], torch.ones(len(held), 3))
    basis = decoder.basis
    middle = decoder.refiner(basis(basis.encode(F.avg_pool2d(image, 4)))).clamp(-1, 1)
    plain = psnr(F.interpolate(middle, scale_factor=2.0, mode="bilinear"), image).mean().item()
    ours = psnr(net.eval()(middle), image).mean().item()
    print(f"enlarge: held-out concepts, n {len(held)}: enlarged {plain:.2f} dB, by the stage {ours:.2f} dB", flush=True)
    return plain, ours
