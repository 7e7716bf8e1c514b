"""The teacher: the generator trained by rectified flow, with the text hidden from some samples, for guidance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import flow
from .decode import Decoder
from .latent import PatchBasis
from .loop import Plan, Setup, Step, mixed_precision, run
from .net import Generator, loaded
from .paths import BASIS, SHEETS, WORK
from .pool import IMAGE, KIND, KINDS, OTHER, Pool
from .prompts import SHEET_PROMPTS, PromptStates

CHECKPOINT = WORK / "teacher.pt"
SHARES = {"plain": 0.50, "background": 0.10, "colour": 0.12, "place": 0.06, "pair": 0.22}

STYLE_WEIGHTS = {"3d": 0.6, "flat": 0.6, "cartoon": 2.4, "minimal": 2.0, "mono": 1.0}  # 3d and flat are the same drawing
TRANSLATED_WEIGHT = 1.5  # soft pictures have small errors and would not come often


class Batches:
    """Endless training batches with fixed shares of each kind.

    Within a kind, recipes of an icon that is still drawn badly from noise come more often: every icon (its recoloured pictures count with it)
    has a running error, and 1,024 recipes at a time are drawn by it, between `FLOOR` and `CEILING` of the mean.
    Styles that the judge finds too seldom, and translations, come more often on top of that.
    """

    FLOOR, CEILING, AHEAD, MEMORY = 0.5, 3.0, 1024, 0.3

    def __init__(self, pool: Pool, batch: int, seed: int) -> None:
        self.pool, self.rng, self.batch = pool, np.random.default_rng(seed), batch
        self.rows = {k: np.flatnonzero(pool.recipes[:, KIND] == KINDS.index(k)) for k in KINDS}
        self.queue = {k: np.empty(0, np.int64) for k in KINDS}
        self.shares = np.array([SHARES[k] for k in KINDS])
        members = pool.info["members"]
        self.errors = np.full(len(members), np.nan)
        self.base = np.array([STYLE_WEIGHTS[style] for _, _, style in members])
        self.base[len(members) - pool.info["translated"]:] *= TRANSLATED_WEIGHT

    def weights(self) -> np.ndarray:
        """How often each icon comes, about 1 on average; icons not seen yet count as the mean."""
        mean = np.nanmean(self.errors) if np.isfinite(self.errors).any() else 1.0
        return self.base * np.clip(np.where(np.isfinite(self.errors), self.errors, mean) / mean, self.FLOOR, self.CEILING)

    def learn(self, recipes: np.ndarray, errors: np.ndarray) -> None:
        """Takes note of the errors of recipes with one icon that were drawn from noise."""
        for icon, error in zip(self.pool.owners[recipes[:, IMAGE]], errors, strict=True):
            old = self.errors[icon]
            self.errors[icon] = error if np.isnan(old) else old + self.MEMORY * (error - old)

    def next(self) -> np.ndarray:
        """Recipes [batch, 6]."""
        chosen = []
        for kind, count in zip(KINDS, self.rng.multinomial(self.batch, self.shares), strict=True):
            if len(self.queue[kind]) < count:
                rows = self.rows[kind]
                chance = self.weights()[self.pool.owners[self.pool.recipes[rows, IMAGE]]]
                more = self.rng.choice(rows, min(self.AHEAD, len(rows)), replace=False, p=chance / chance.sum())
                self.queue[kind] = np.concatenate([self.queue[kind], more])
            chosen.append(self.queue[kind][:count])
            self.queue[kind] = self.queue[kind][count:]
        return self.pool.recipes[np.concatenate(chosen)]


def setup(batch: int, start_share: float, hidden_share: float) -> Setup:
    """The step function's maker (see loop.run)."""

    def for_worker(worker: int, steps_done: int) -> Step:
        basis = PatchBasis.load(BASIS)
        empty = PromptStates([""])
        batches = Batches(Pool(), batch, 17 + 1000 * worker + steps_done)
        generator = torch.Generator().manual_seed(23 + 1000 * worker + steps_done)

        def step(net: Callable[..., Tensor], _: int) -> tuple[Tensor, dict[str, float]]:
            recipes = batches.next()
            clean = basis.encode(batches.pool.pictures(recipes))
            states, mask = batches.pool.text(recipes)
            t = flow.training_times(batch, generator, start_share)
            mixed = flow.per_sample(t) * clean + flow.per_sample(1 - t) * torch.randn(clean.shape, generator=generator)
            hidden = torch.rand(batch, generator=generator) < hidden_share
            states[hidden], mask[hidden] = empty.states, empty.mask
            with mixed_precision():
                predicted = net(mixed, t, states, mask)
            plain, first = torch.from_numpy(recipes[:, KIND] == 0), (t == 0) & ~hidden
            error = ((predicted.detach() - clean) ** 2).mean((1, 2, 3))
            single = (first & torch.from_numpy(recipes[:, OTHER] < 0)).numpy()
            batches.learn(recipes[single], flow.relative_error(predicted.detach(), clean).numpy()[single])
            return flow.flow_loss(predicted, clean, t), {"mse": float(error.mean()), **of("plain", error[plain & first]), **of("first", error[first])}

        return step

    return for_worker


def of(key: str, values: Tensor) -> dict[str, float]:
    """A figure for the log, left out where there is nothing to average."""
    return {key: float(values.mean())} if len(values) else {}


def train(name: str, stop_at: float, start: Path | None, rate: float, batch: int, workers: int, start_share: float,
          hidden_share: float, decay: float, compiled: bool) -> None:
    """Trains the checkpoint `name` until `stop_at`; `start` gives the first weights (a checkpoint of ours or the prototype's safetensors)."""
    checkpoint = WORK / f"{name}.pt"
    net = first_weights(checkpoint if checkpoint.exists() else start)  # the loop resumes, but the shape may have grown
    plan = Plan(name, checkpoint, stop_at, batch=batch, rate=rate, decay=decay, workers=workers, compiled=compiled)
    states = PromptStates(SHEET_PROMPTS)
    decoder = Decoder()

    def sheets(average: nn.Module, progress: dict) -> None:
        latents = flow.sample(average, states.states, states.mask, flow.noise(len(SHEET_PROMPTS), 1), 1)
        decoder.sheet(latents, SHEET_PROMPTS, 8, SHEETS / f"{name}-{progress['images']:07d}.png")

    run(plan, net, setup(batch, start_share, hidden_share), sheets)


def first_weights(start: Path | None) -> Generator:
    """Random weights, the prototype's, or the average of one of our checkpoints."""
    torch.manual_seed(0)
    if start is None:
        return Generator()
    if start.suffix == ".safetensors":
        from . import prototype

        return prototype.generator(start)
    return loaded(Generator, torch.load(start, weights_only=True))
