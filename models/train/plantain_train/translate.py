"""The translator: draws a word in a style from the word's pictures in other styles, for pairs that no picture exists of.

A generator whose input is not noise but the latents of the other styles, and whose caption names only the style to draw. It never meets a
word, so it has nothing to remember a picture by; turning, moving and recolouring source and target alike makes every pair many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import flow
from .concepts import STYLE_WORDS, Concept, held_pair, load, never_asked, styles
from .judge import Judge, on_white
from .latent import PatchBasis
from .loop import Plan, Setup, Step, mixed_precision, run
from .net import LATENT_CHANNELS, Generator
from .paths import BASIS, SHEETS, TRANSLATED, WORK
from .prompts import PromptStates
from .render import stored
from .sheet import sheet
from .teacher import first_weights

CHECKPOINT = WORK / "translator.pt"
STYLES = styles()
SLOT = LATENT_CHANNELS + 1  # a style's latent, and 1 where there is one
TARGET_SHARES = np.array([0.5, 0.5, 1.0, 1.0, 1.0])  # 3d and flat are the same drawing and easy
HIDE = 0.2  # how often a source is left out


class Table:
    """64 px pictures on white of every (word, style) that training may see: `pictures` uint8 [N, 5, 64, 64, 3], `there` bool [N, 5]."""

    def __init__(self) -> None:
        renders, at = stored()
        self.concepts = load()
        self.pictures = np.full((len(self.concepts), len(STYLES), 64, 64, 3), 255, np.uint8)
        self.there = np.zeros(self.pictures.shape[:2], bool)
        for c, concept in enumerate(self.concepts):
            for s, style in enumerate(STYLES):
                if (concept.code, style) in at and not held_pair(concept, style):
                    self.pictures[c, s] = on_white(renders[at[concept.code, style]])
                    self.there[c, s] = True

    def of(self, c: np.ndarray) -> Tensor:
        """The pictures of some words, in all styles: [len(c), 5, 3, 64, 64] in [-1, 1]."""
        return torch.from_numpy(self.pictures[c]).permute(0, 1, 4, 2, 3).float() / 127.5 - 1

    def lacking(self) -> list[tuple[int, int]]:
        """Pairs without a picture of words that have at least one."""
        return [(int(c), int(s)) for c, s in np.argwhere(~self.there) if self.there[c].any()]

    def name(self, c: int, s: int) -> tuple[Concept, str]:
        """Concept and style by their numbers."""
        return self.concepts[c], STYLES[s]


def network(start: Generator) -> Generator:
    """`start` with an input for the latents of all styles: `sample` is [B, 5 * 49, 8, 8]."""
    torch.manual_seed(0)
    start.latent_in = nn.Linear(len(STYLES) * SLOT, start.latent_in.out_features)
    return start


def sources(basis: PatchBasis, pictures: Tensor, there: Tensor) -> Tensor:
    """Pictures [B, 5, 3, 64, 64] and which of them are shown [B, 5] -> `sample`."""
    b, n = there.shape
    latents = basis.encode(pictures.flatten(0, 1)).unflatten(0, (b, n))
    shown = there[:, :, None, None, None].to(latents.dtype)
    return torch.cat([latents * shown, shown.expand(b, n, 1, *latents.shape[-2:])], 2).flatten(1, 2)


def moved(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """[B, n, 3, 64, 64]: mirrored, turned by up to 15 degrees, scaled and shifted, alike for the n of a sample; one in three stays."""
    b, n = pictures.shape[:2]

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(b, generator=generator)

    stays = torch.rand(b, generator=generator) < 0.33
    angle, scale = torch.where(stays, 0.0, uniform(-15, 15)) * math.pi / 180, torch.where(stays, 1.0, uniform(0.9, 1.25))
    mirror = torch.where(torch.rand(b, generator=generator) < 0.5, -1.0, 1.0)
    shift = torch.where(stays[:, None], 0.0, torch.stack([uniform(-0.12, 0.12), uniform(-0.12, 0.12)], 1))
    cos, sin = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack([torch.stack([mirror * cos, -sin, shift[:, 0]], 1), torch.stack([mirror * sin, cos, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(theta.repeat_interleave(n, 0), [b * n, 3, 64, 64], align_corners=False)
    return F.grid_sample(pictures.flatten(0, 1), grid, padding_mode="border", align_corners=False).unflatten(0, (b, n))


def recoloured(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """[B, n, 3, 64, 64] with hues turned by a random angle, alike for a sample; grey stays grey. Half of the samples stay."""
    b = len(pictures)
    angle = torch.where(torch.rand(b, generator=generator) < 0.5, 0.0, torch.rand(b, generator=generator) * 2 * math.pi)
    cos, sin = angle.cos(), angle.sin()
    side, cross = (1 - cos) / 3, sin / math.sqrt(3)  # a rotation about the grey axis (Rodrigues)
    rows = [torch.stack([cos + side, side - cross, side + cross], 1), torch.stack([side + cross, cos + side, side - cross], 1),
            torch.stack([side - cross, side + cross, cos + side], 1)]
    return torch.einsum("bij,bnjyx->bniyx", torch.stack(rows, 1), pictures).clamp(-1, 1)


def style_states() -> tuple[Tensor, Tensor]:
    """Text states and masks of captions that name a style and nothing else."""
    states = PromptStates([STYLE_WORDS[s][0] for s in STYLES])
    return states.states, states.mask


def setup(batch: int) -> Setup:
    """The step function's maker (see loop.run)."""

    def for_worker(worker: int, steps_done: int) -> Step:
        table, basis, (states, mask) = Table(), PatchBasis.load(BASIS), style_states()
        rng = np.random.default_rng(91 + 1000 * worker + steps_done)
        generator = torch.Generator().manual_seed(92 + 1000 * worker + steps_done)
        targets = np.argwhere(table.there & (table.there.sum(1, keepdims=True) > 1))
        chance = TARGET_SHARES[targets[:, 1]]

        def step(net: Callable[..., Tensor], _: int) -> tuple[Tensor, dict[str, float]]:
            c, s = targets[rng.choice(len(targets), batch, p=chance / chance.sum())].T
            pictures = recoloured(moved(table.of(c), generator), generator)
            shown = table.there[c] & (rng.random(table.there[c].shape) > HIDE)
            shown[np.arange(batch), s] = False
            target = basis.encode(pictures[torch.arange(batch), torch.from_numpy(s)])
            sample = sources(basis, pictures, torch.from_numpy(shown))
            with mixed_precision():
                predicted = net(sample, torch.zeros(batch), states[s], mask[s])
            error = flow.relative_error(predicted, target)
            seen = error.detach()
            return error.mean(), {k: float(seen[torch.from_numpy(s == i)].mean()) for i, k in enumerate(STYLES) if (s == i).any()}

        return step

    return for_worker


@torch.no_grad()
def draw(net: nn.Module, table: Table, pairs: list[tuple[int, int]]) -> np.ndarray:
    """The pairs, each from all pictures that there are of its word: uint8 [N, 64, 64, 3]."""
    basis, (states, mask), drawn = PatchBasis.load(BASIS), style_states(), []
    for i in range(0, len(pairs), 64):
        c, s = np.array(pairs[i:i + 64]).T
        shown = table.there[c].copy()
        shown[np.arange(len(c)), s] = False
        latent = net(sources(basis, table.of(c), torch.from_numpy(shown)), torch.zeros(len(c)), states[s], mask[s])
        image = (basis(latent).clamp(-1, 1) + 1) * 127.5
        drawn.append(image.round().byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(drawn)


def measure(net: nn.Module, table: Table, name: str) -> None:
    """Prints how many of the pairs that training never sees the judge finds in the translations, and writes a sheet of them."""
    renders, at = stored()
    pairs = [(c, s) for c, s in table.lacking() if (table.concepts[c].code, STYLES[s]) in at]
    judge, images, asked = Judge(table.concepts), draw(net, table, pairs), [c for c, _ in pairs]
    ours = judge.ranks(images, asked) < 5
    real = judge.ranks(np.stack([on_white(renders[at[table.concepts[c].code, STYLES[s]]]) for c, s in pairs]), asked) < 5
    parts = ", ".join(f"{style} {ours[rows].mean():.3f} of {real[rows].mean():.3f}" for i, style in enumerate(STYLES)
                      if (rows := np.array([s == i for _, s in pairs])).any())
    print(f"translate: unseen pairs, n {len(pairs)}, top-5 {ours.mean():.3f}, real pictures {real.mean():.3f}; {parts}", flush=True)
    sheet(list(images[:96].repeat(2, 1).repeat(2, 2)), [f"{table.concepts[c].word}, {STYLES[s]}" for c, s in pairs[:96]], 12, SHEETS / f"{name}.png")


def train(stop_at: float, start: Path | None = None, batch: int = 64, workers: int = 1, compiled: bool = False) -> None:
    """Trains until `stop_at`, from the weights of the generator `start`, measures, and writes the lacking pictures to `TRANSLATED`."""
    net, table = network(first_weights(start)), Table()
    saved = run(Plan("translate", CHECKPOINT, stop_at, batch=batch, rate=1e-3, decay=0.6, workers=workers, compiled=compiled), net, setup(batch),
                lambda average, progress: measure(average, table, f"translate-{progress['images']:07d}"))
    net.load_state_dict(saved["ema"])
    pairs = [p for p in table.lacking() if not never_asked(*table.name(*p))]
    np.savez_compressed(TRANSLATED, pictures=draw(net.eval(), table, pairs), codes=[table.concepts[c].code for c, _ in pairs],
                        styles=[STYLES[s] for _, s in pairs])
    print(f"translate: {len(pairs)} pictures for pairs without one", flush=True)
