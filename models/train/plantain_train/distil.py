"""Distillation: a student learns in one call what the teacher reaches in several, guidance included.

First trajectories are drawn and stored (noise, half-way, end), then the student, which starts as the teacher or as a smaller net of its own,
learns to give the end from the noise (t = 0) and from half-way (t = 0.5), so that one and two steps both work. A share of each batch are
real pictures, to be given from noise: where the teacher is wrong, the data say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import flow
from .latent import PatchBasis
from .loop import Plan, Setup, Step, mixed_precision, run
from .net import Generator
from .paths import BASIS, WORK
from .pool import OTHER, Pool
from .prompts import PromptStates
from .teacher import Batches, first_weights

CHECKPOINT, TRAJECTORIES = WORK / "student.pt", WORK / "trajectories"
STEPS, GUIDANCE, CHUNK = 4, 1.5, 64
REAL_SHARE = 0.5


def draw(teacher: Path, stop_at: float, count: int, seed: int = 70) -> None:
    """Adds trajectory files until there are `count` pictures or it is `stop_at`."""
    net, pool, empty = first_weights(teacher).eval(), Pool(), PromptStates([""])
    TRAJECTORIES.mkdir(parents=True, exist_ok=True)
    made = len(list(TRAJECTORIES.glob("*.npz")))
    batches = Batches(pool, CHUNK, seed + made)
    while made * CHUNK < count and time.time() < stop_at:
        recipes = batches.next()
        states, mask = pool.text(recipes)
        start = flow.noise(CHUNK, 10_000 + made)
        with mixed_precision():
            half, end = flow.sample(net, states, mask, start, STEPS, GUIDANCE, (empty.states, empty.mask), keep=(STEPS // 2,))
        np.savez(TRAJECTORIES / f"{made:05d}.npz", recipes=recipes, seed=10_000 + made, half=half.half().numpy(), end=end.half().numpy())
        made += 1
        if made % 10 == 0:
            print(f"distil: {made * CHUNK} trajectories", flush=True)


def setup(batch: int) -> Setup:
    """The step function's maker (see loop.run)."""

    def for_worker(worker: int, steps_done: int) -> Step:
        pool, files = Pool(), [np.load(f) for f in sorted(TRAJECTORIES.glob("*.npz"))]
        recipes = np.concatenate([f["recipes"] for f in files])
        start = torch.cat([flow.noise(CHUNK, int(f["seed"])) for f in files])
        half, end = (torch.from_numpy(np.concatenate([f[k] for f in files])) for k in ("half", "end"))
        rng, basis = np.random.default_rng(50 + 1000 * worker + steps_done), PatchBasis.load(BASIS)
        real = round(REAL_SHARE * batch)
        batches, generator = Batches(pool, real, 51 + 1000 * worker + steps_done), torch.Generator().manual_seed(52 + 1000 * worker + steps_done)

        def step(net: Callable[..., Tensor], _: int) -> tuple[Tensor, dict[str, float]]:
            rows, shown = rng.integers(0, len(recipes), batch - real), batches.next()
            clean = basis.encode(pool.pictures(shown))
            late = torch.from_numpy(np.concatenate([rng.random(batch - real) < 0.4, np.zeros(real, bool)]))
            x = torch.where(flow.per_sample(late[:batch - real]), half[rows].float(), start[rows])
            x = torch.cat([x, torch.randn(clean.shape, generator=generator)])
            states, mask = pool.text(np.concatenate([recipes[rows], shown]))
            with mixed_precision():
                predicted = net(x, torch.where(late, 0.5, 0.0), states, mask)
            error = flow.relative_error(predicted, torch.cat([end[rows].float(), clean]))
            seen, taught, single = error.detach(), torch.arange(batch) < batch - real, shown[:, OTHER] < 0
            batches.learn(shown[single], seen[~taught].numpy()[single])
            return (error * torch.where(late, 3.0, 1.0)).mean(), {"first": float(seen[~late & taught].mean()), "late": float(seen[late].mean()),
                                                                  "real": float(seen[~taught].mean())}

        return step

    return for_worker


def train(teacher: Path, start: Path | None, stop_at: float, batch: int = 32, workers: int = 2, compiled: bool = False) -> None:
    """Trains the student from the average weights of `start`, or of the teacher."""
    net: Generator = first_weights(start or teacher)
    run(Plan("distil", CHECKPOINT, stop_at, batch=batch, rate=3e-4, warm_up=20, decay=0.8, weight_decay=0.0, clip=1.0, ema=0.99,
             workers=workers, compiled=compiled), net, setup(batch))
