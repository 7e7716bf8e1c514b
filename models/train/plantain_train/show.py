"""Contact sheets of a pack, drawn by plantain itself: samples, the 50 prompts of fifty.txt, words of the list in every style, 256 px."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from PIL import Image

from .concepts import STYLE_WORDS, load
from .evaluate import Plantain
from .paths import HERE
from .sheet import sheet

SEED, COLUMNS, WORDS = 1, 10, 60
SAMPLES = [("a red apple", "cartoon"), ("a cat", "minimal"), ("a house", "minimal"), ("a rocket", "minimal"), ("a purple umbrella", "cartoon"),
           ("a robot on a yellow background", "3d"), ("a guitar", "3d"), ("a banana and a strawberry", "flat")]
LARGE = [("a red apple", "cartoon"), ("a fox", "flat"), ("a rocket", "minimal"), ("a key", "mono")]


def fifty() -> list[tuple[str, str | None]]:
    """Prompts and their styles."""
    lines = [line.split("|") for line in (HERE / "fifty.txt").read_text().splitlines() if line and not line.startswith("#")]
    return [(prompt.strip(), style.strip() or None) for prompt, style in lines]


def show(pack: Path, out: Path, binary: Path, large: bool) -> None:
    """Writes samples.png, fifty.jpg and style-NAME.jpg: the same words in each style, a third of them from the top of the list; and large.jpg."""
    artist, prompts = Plantain(pack, binary), fifty()
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([artist.one(p, SEED, style) for p, style in SAMPLES], 1)).save(out / "samples.png")
    sheet([artist.one(p, SEED, style) for p, style in prompts], [f"{p}, {style}" if style else p for p, style in prompts], COLUMNS,
          out / "fifty.jpg")
    words, rng = [c.word for c in load()], random.Random(3)
    chosen = [*rng.sample(words[:120], WORDS // 3), *rng.sample(words[120:], WORDS - WORDS // 3)]
    for style in STYLE_WORDS:
        sheet([artist.one(w, SEED, style) for w in chosen], chosen, COLUMNS, out / f"style-{style}.jpg")
    if large:
        Image.fromarray(np.concatenate([artist.one(p, SEED, style, "256x256") for p, style in LARGE], 1)).save(out / "large.jpg", quality=90)
    print(f"show: {out}", flush=True)
