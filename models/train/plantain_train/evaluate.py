"""Draws test prompts, with a checkpoint or with plantain and a pack, and lets the judge rank them, beside its score on the real pictures."""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import flow
from .captions import with_article
from .concepts import (
    BACKGROUNDS,
    HUES,
    STYLE_WORDS,
    Concept,
    held_pair,
    load,
    never_asked,
    prototype_seen,
    styles,
)
from .decode import Decoder
from .judge import Judge, on_white
from .net import Generator, loaded
from .paths import POOL, SHEETS
from .pool import dominant_hue
from .prompts import PromptStates
from .render import stored
from .sheet import sheet


class Checkpoint:
    """A checkpoint with its sampling settings, drawn by PyTorch."""

    def __init__(self, checkpoint: Path, steps: int, guidance: float) -> None:
        saved = torch.load(checkpoint, weights_only=True)
        self.net = loaded(Generator, saved)
        self.steps, self.guidance, self.decoder, self.images = steps, guidance, Decoder(), saved.get("images", 0)
        self.empty = PromptStates([""])
        self.name = f"{checkpoint.stem}-{self.images:07d}"

    def draw(self, prompts: list[str], seed: int) -> np.ndarray:
        """uint8 [N, 128, 128, 3]"""
        states, parts = PromptStates(prompts), []
        for i in range(0, len(prompts), 64):
            part = slice(i, i + 64)
            start = flow.noise(len(prompts[part]), seed + i)
            latents = flow.sample(self.net, states.states[part], states.mask[part], start, self.steps, self.guidance,
                                  (self.empty.states, self.empty.mask))
            parts.append(self.decoder.whole(latents))
        return np.concatenate(parts)


class Plantain:
    """A pack, drawn by `plantain generate`: int8, as users get it."""

    def __init__(self, pack: Path, binary: Path) -> None:
        self.pack, self.binary, self.images, self.name = pack, binary, 0, f"plantain-{pack.stem}"

    def draw(self, prompts: list[str], seed: int) -> np.ndarray:
        """uint8 [N, 128, 128, 3]; the prompts hold their style already."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return np.stack(list(pool.map(lambda i: self.one(prompts[i], seed + i, "none"), range(len(prompts)))))

    def one(self, prompt: str, seed: int, style: str | None = None, size: str | None = None) -> np.ndarray:
        """uint8 [128, 128, 3], or of another size."""
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            command = [self.binary, "generate", prompt, "-o", file.name, "--pack", self.pack, "--seed", str(seed), "--threads", "1"]
            if style:
                command += ["--style", style]
            if size:
                command += ["--size", size]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return np.asarray(Image.open(file.name).convert("RGB"))


Artist = Checkpoint | Plantain


def half(images: np.ndarray) -> np.ndarray:
    """uint8 [N, 2S, 2S, 3] -> uint8 [N, S, S, 3], averaged."""
    count, side = images.shape[0], images.shape[1] // 2
    return np.rint(images.reshape(count, side, 2, side, 2, 3).astype(np.float32).mean((2, 4))).astype(np.uint8)


def title(concept: Concept, style: str) -> str:
    """The plain prompt."""
    return f"{concept.word}, {STYLE_WORDS[style][0]}"


def object_hue(image: np.ndarray) -> float | None:
    """Main hue of what is not white."""
    alpha = ((255 - image.min(-1)) > 25).astype(np.uint8) * 255
    found = dominant_hue(np.concatenate([image, alpha[..., None]], -1))
    return None if found is None else found[0]


def ground_is(image: np.ndarray, colour: str) -> bool:
    """True if the corners are nearest to that background of all."""
    corners = np.median(np.concatenate([image[:6, :6], image[:6, -6:], image[-6:, :6], image[-6:, -6:]]).reshape(-1, 3), 0)
    return min(BACKGROUNDS, key=lambda c: float(np.abs(corners - BACKGROUNDS[c]).sum())) == colour


def evaluate(artist: Artist, count: int, among: str = "all", seed: int = 5) -> dict[str, float]:
    """Prints one line a test set, writes sheets, and gives the figures.

    `among` says which words are asked for: "all", "prototype", or "first N"; the judge's candidates are always all.
    """
    rng = random.Random(seed)
    info = json.loads((POOL / "pool.json").read_text())
    concepts, (renders, at) = load(info["concepts"]), stored()
    judge, number = Judge(concepts), {c.word: i for i, c in enumerate(concepts)}
    figures: dict[str, float] = {"images": artist.images}
    stem = artist.name + ("" if among == "all" else f"-{among.replace(' ', '-')}")

    def judged(name: str, chosen: list[tuple[Concept, str]]) -> None:
        if not chosen:
            return
        images = artist.draw([title(c, s) for c, s in chosen], seed)
        asked = [number[c.word] for c, _ in chosen]
        ours = judge.ranks(half(images), asked)
        real = judge.ranks(np.stack([on_white(renders[at[c.code, s]]) for c, s in chosen]), asked)
        figures[f"{name} top1"], figures[f"{name} top5"] = float((ours < 1).mean()), float((ours < 5).mean())
        figures[f"{name} real top5"] = float((real < 5).mean())
        print(f"{name}: n {len(chosen)}, top-1 {(ours < 1).mean():.3f}, top-5 {(ours < 5).mean():.3f}; real pictures {(real < 1).mean():.3f}, "
              f"{(real < 5).mean():.3f}; top-5 relative {(ours < 5).mean() / max(1e-9, (real < 5).mean()):.3f}", flush=True)
        for style in styles():
            rows = np.array([s == style for _, s in chosen])
            if rows.any():
                print(f"  {style}: n {rows.sum()}, top-5 {(ours[rows] < 5).mean():.3f}, real {(real[rows] < 5).mean():.3f}", flush=True)
        sheet(list(images[:64]), [title(c, s) for c, s in chosen[:64]], 8, SHEETS / f"{stem}-{name.replace(' ', '-')}.png")

    everything = [(c, s) for c in concepts for s in styles() if (c.code, s) in at]
    if among == "prototype":
        everything = [p for p in everything if p[0].label.lower() in prototype_seen()["labels"]]
    elif among.startswith("first "):
        everything = [p for p in everything if number[p[0].word] < int(among.split()[1])]
    trained = [p for p in everything if not held_pair(*p)]
    held = [p for p in everything if held_pair(*p)]
    judged("trained", rng.sample(trained, min(count, len(trained))))
    unseen = [p for p in held if never_asked(*p)]
    judged("unseen pairs", rng.sample(unseen, min(count, len(unseen))))
    judged("translated pairs", [p for p in held if not never_asked(*p)][:count])

    asked_words = {c.word for c, _ in everything}
    tests = sorted({tuple(t) for t in info["colour_tests"] if t[2] in asked_words})
    tests = rng.sample(tests, min(96, len(tests)))
    prompts = [f"{p}, {STYLE_WORDS[rng.choice(['3d', 'flat', 'cartoon'])][0]}" for p, _, _ in tests]
    images = half(whole := artist.draw(prompts, seed))
    hues = [object_hue(i) for i in images]
    right = [h is not None and abs((h - HUES[c] + 180) % 360 - 180) < 25 for h, (_, c, _) in zip(hues, tests, strict=True)]
    figures["unseen colours"] = float(np.mean(right))
    print(f"unseen colour pairs: n {len(tests)}, hue within 25 degrees {np.mean(right):.3f} (chance 0.139)", flush=True)
    sheet(list(whole[:40]), prompts[:40], 8, SHEETS / f"{stem}-colours.png")

    grounds = [(c, s, g) for c, s in rng.sample(trained, 64) if (g := rng.choice([b for b in BACKGROUNDS if b not in ("white", "black")]))]
    prompts = [f"{c.word} on {with_article(g, g)} background, {STYLE_WORDS[s][0]}" for c, s, g in grounds]
    images = half(whole := artist.draw(prompts, seed))
    hits = [ground_is(i, g) for i, (_, _, g) in zip(images, grounds, strict=True)]
    figures["backgrounds"] = float(np.mean(hits))
    print(f"background colours: n {len(hits)}, corners nearest to the word {np.mean(hits):.3f} (chance 0.09)", flush=True)
    sheet(list(whole[:40]), prompts[:40], 8, SHEETS / f"{stem}-grounds.png")

    known = [c for c in concepts if c.word in asked_words and (c.code, "flat") in at]
    both = [tuple(rng.sample(known, 2)) for _ in range(64)]
    prompts = [f"{with_article(a.word, a.word)} and {with_article(b.word, b.word)}, flat" for a, b in both]
    images = half(whole := artist.draw(prompts, seed))
    asked = [[number[p[side].word] for p in both] for side in (0, 1)]
    drawn = [judge.ranks(enlarge(images[:, 16:48, x:x + 32]), asked[side]) < 5 for side, x in enumerate((0, 32))]
    real = [judge.ranks(enlarge(np.stack([on_white(renders[at[p[side].code, "flat"]])[::2, ::2] for p in both])), asked[side]) < 5
            for side in (0, 1)]
    figures["both objects"], figures["both objects real"] = (float((h[0] & h[1]).mean()) for h in (drawn, real))
    print(f"two objects: n {len(both)}, both in the judge's top-5 {figures['both objects']:.3f}; real pictures as small "
          f"{figures['both objects real']:.3f}", flush=True)
    sheet(list(whole[:40]), prompts[:40], 8, SHEETS / f"{stem}-pairs.png")
    (SHEETS / f"{stem}.json").write_text(json.dumps(figures, indent=1))
    return figures


def enlarge(images: np.ndarray) -> np.ndarray:
    """[N, 32, 32, 3] -> [N, 64, 64, 3] by repetition."""
    return images.repeat(2, 1).repeat(2, 2)
