"""An honest judge: which known concept does a picture show? It learns only from real icons in styles that the generator never sees.

Gradient histograms and colours of the 64 px picture -> kernel ridge regression -> the text embedding of the concept's name; the
rank of the asked concept among all candidates is the score. It sees no generated picture, no generator style, and no weights.
"""

from __future__ import annotations

import json

import numpy as np

from .concepts import Concept
from .paths import RENDERS, RENDERS_INDEX, WORK
from .pool import premultiplied
from .prompts import PromptStates
from .render import JUDGE_STYLES

JUDGE = WORK / "judge.npz"
RIDGE, WIDTH = 0.05, 4.0


def on_white(rgba: np.ndarray) -> np.ndarray:
    """uint8 RGBA [128, 128, 4] -> uint8 [64, 64, 3]"""
    a = premultiplied(rgba, 64).astype(np.int32)
    return np.minimum(a[..., :3] + 255 - a[..., 3:], 255).astype(np.uint8)


def features(images: np.ndarray) -> np.ndarray:
    """uint8 [N, 64, 64, 3] -> f32 [N, 768]: 8x8 cells of 8 gradient directions, mean colours, and a colour histogram."""
    a = images.astype(np.float32) / 255
    count, grey = len(a), a.mean(-1)
    dx, dy = np.zeros_like(grey), np.zeros_like(grey)
    dx[:, :, 1:-1], dy[:, 1:-1] = grey[:, :, 2:] - grey[:, :, :-2], grey[:, 2:] - grey[:, :-2]
    strength, direction = np.hypot(dx, dy), (np.arctan2(dy, dx) % np.pi / np.pi * 8).astype(int) % 8
    cells = np.stack([(strength * (direction == k)).reshape(count, 8, 8, 8, 8).sum((2, 4)) for k in range(8)], -1).reshape(count, -1)
    cells = cells / (np.linalg.norm(cells, axis=1, keepdims=True) + 1e-6) * 4
    colours = a.reshape(count, 8, 8, 8, 8, 3).mean((2, 4)).reshape(count, -1) - 1
    bins = (np.minimum((a * 4).astype(int), 3) @ np.array([16, 4, 1])).reshape(count, -1)
    histogram = np.stack([np.bincount(row, minlength=64) for row in bins]) / bins.shape[1]
    return np.concatenate([np.sqrt(cells), colours, 2 * np.sqrt(histogram)], 1).astype(np.float32)


def fit() -> None:
    """Fits on every real icon of the judge's styles, of all concepts, and writes judge.npz."""
    index, renders = json.loads(RENDERS_INDEX.read_text()), np.load(RENDERS, mmap_mode="r")
    labels = sorted({i["label"].lower() for i in index})
    prompts = PromptStates(labels, whole=True)
    column = prompts.mask[..., None]
    names = ((prompts.states * column).sum(1) / column.sum(1)).numpy()
    names -= names.mean(0)
    names /= np.linalg.norm(names, axis=1, keepdims=True)
    at = {label: i for i, label in enumerate(labels)}
    rows = [i for i, entry in enumerate(index) if entry["style"] in JUDGE_STYLES]
    x = features(np.stack([on_white(renders[i]) for i in rows]))
    mean = x.mean(0)
    points = x - mean
    scale = 2 * (points ** 2).sum(1).mean()
    targets = names[[at[index[i]["label"].lower()] for i in rows]]
    weights = np.linalg.solve(kernel(points, points, scale) + RIDGE * np.eye(len(rows), dtype=np.float32), targets)
    np.savez(JUDGE, mean=mean, points=points, scale=scale, weights=weights.astype(np.float32), names=names, labels=labels)
    print(f"judge: {len(rows)} real pictures of {len(labels)} concepts in the styles {', '.join(JUDGE_STYLES)}", flush=True)


def kernel(x: np.ndarray, points: np.ndarray, scale: float) -> np.ndarray:
    """Gaussian kernel [N, points]."""
    distance = (x ** 2).sum(1)[:, None] + (points ** 2).sum(1)[None] - 2 * x @ points.T
    return np.exp(-distance / scale * WIDTH)


class Judge:
    """Ranks concepts for pictures."""

    def __init__(self, candidates: list[Concept]) -> None:
        """Reads the fitted judge (fits it first if need be); `candidates` are the concepts that it may answer."""
        if not JUDGE.exists():
            fit()
        z = np.load(JUDGE)
        self.mean, self.points, self.scale, self.weights = z["mean"], z["points"], float(z["scale"]), z["weights"]
        at = {label: i for i, label in enumerate(z["labels"].tolist())}
        self.candidates = z["names"][[at[c.label.lower()] for c in candidates]]

    def ranks(self, images: np.ndarray, asked: list[int]) -> np.ndarray:
        """0 is best: the place of candidate `asked[i]` for picture i (uint8 [N, 64, 64, 3])."""
        scores = kernel(features(images) - self.mean, self.points, self.scale) @ self.weights @ self.candidates.T
        return (scores > scores[np.arange(len(asked)), asked][:, None]).sum(1)
