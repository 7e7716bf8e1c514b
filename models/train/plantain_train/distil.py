"""Distillation: a student learns in one call what the teacher reaches in several, guidance included.

First trajectories are drawn and stored (noise, half-way, end), then the student, which starts as the teacher, learns to give the end
from the noise (t = 0) and from half-way (t = 0.5), so that one and two steps both work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import flow
from .loop import Plan, Setup, Step, run
from .net import Generator
from .paths import WORK
from .pool import Pool
from .teacher import Batches, first_weights

CHECKPOINT, TRAJECTORIES = WORK / "student.pt", WORK / "trajectories"
STEPS, GUIDANCE, CHUNK = 6, 2.0, 30


def draw(teacher: Path, stop_at: float, count: int, seed: int = 70) -> None:
    """Adds trajectory files until there are `count` pictures or it is `stop_at`."""
    net, pool = first_weights(teacher).eval(), Pool()
    TRAJECTORIES.mkdir(parents=True, exist_ok=True)
    made = len(list(TRAJECTORIES.glob("*.npz")))
    batches = Batches(pool, CHUNK, seed + made)
    while made * CHUNK < count and time.time() < stop_at:
        recipes = batches.next()
        states, mask = pool.text(recipes)
        start = flow.noise(CHUNK, 10_000 + made)
        with torch.autocast("cpu", torch.bfloat16):
            half, end = flow.sample(net, states, mask, start, STEPS, GUIDANCE, keep=(STEPS // 2,))
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
        rng = np.random.default_rng(50 + 1000 * worker + steps_done)

        def step(net: Callable[..., Tensor], _: int) -> tuple[Tensor, dict[str, float]]:
            rows = rng.integers(0, len(recipes), batch)
            late = torch.from_numpy(rng.random(batch) < 0.4)
            x = torch.where(flow.per_sample(late), half[rows].float(), start[rows])
            states, mask = pool.text(recipes[rows])
            with torch.autocast("cpu", torch.bfloat16):
                predicted = net(x, torch.where(late, 0.5, 0.0), states, mask)
            error = ((predicted - end[rows].float()) ** 2).mean((1, 2, 3))
            seen = error.detach()
            return (error * torch.where(late, 3.0, 1.0)).mean(), {"first": float(seen[~late].mean()), "late": float(seen[late].mean())}

        return step

    return for_worker


def train(teacher: Path, stop_at: float, batch: int = 32, workers: int = 2, compiled: bool = False) -> None:
    """Trains the student from the teacher's average weights."""
    net: Generator = first_weights(teacher)
    run(Plan("distil", CHECKPOINT, stop_at, batch=batch, rate=5e-4, warm_up=20, decay=0.6, weight_decay=0.0, clip=1.0, ema=0.99,
             workers=workers, compiled=compiled), net, setup(batch))
