"""Contact sheets of a pack, drawn by plantain itself: the 50 prompts of fifty.txt, and words of the list in every style."""

from __future__ import annotations

import random
from pathlib import Path

from .concepts import STYLE_WORDS, load
from .evaluate import Plantain
from .paths import HERE
from .sheet import sheet

SEED, COLUMNS, WORDS = 1, 10, 60


def fifty() -> list[tuple[str, str | None]]:
    """Prompts and their styles."""
    lines = [line.split("|") for line in (HERE / "fifty.txt").read_text().splitlines() if line and not line.startswith("#")]
    return [(prompt.strip(), style.strip() or None) for prompt, style in lines]


def show(pack: Path, out: Path, binary: Path) -> None:
    """Writes fifty.png and style-NAME.png: the same words in each style, one in three of the most important, the rest from all over the list."""
    artist, prompts = Plantain(pack, binary), fifty()
    sheet([artist.one(p, SEED, style) for p, style in prompts], [f"{p}, {style}" if style else p for p, style in prompts], COLUMNS,
          out / "fifty.png")
    words, rng = [c.word for c in load()], random.Random(3)
    chosen = [*rng.sample(words[:120], WORDS // 3), *rng.sample(words[120:], WORDS - WORDS // 3)]
    for style in STYLE_WORDS:
        sheet([artist.one(w, SEED, style) for w in chosen], chosen, COLUMNS, out / f"style-{style}.png")
    print(f"show: {out}", flush=True)
