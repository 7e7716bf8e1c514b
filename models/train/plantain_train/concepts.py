"""What can be drawn: words, styles, colours, places, and which combinations training never sees."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache

from .paths import CONCEPTS, EMOJIBASE, HERE
from .render import GENERATOR_STYLES, code

# style key -> the suffix that users type, then other spellings
STYLE_WORDS = {"3d": ("3d render", "3d"), "flat": ("flat", "flat icon"), "cartoon": ("cartoon", "cartoon drawing"),
               "minimal": ("minimal", "minimal icon"), "mono": ("black and white", "black and white icon")}
BACKGROUNDS = {"white": (255, 255, 255), "red": (220, 50, 47), "orange": (245, 150, 50), "yellow": (250, 215, 70), "green": (90, 180, 90),
               "blue": (70, 130, 220), "purple": (150, 90, 190), "pink": (245, 160, 190), "gray": (150, 150, 150), "black": (20, 20, 20),
               "brown": (140, 95, 60)}
HUES = {"red": 0, "orange": 28, "yellow": 50, "green": 120, "blue": 215, "purple": 275, "pink": 330}
PLACES = ("whole", "small", "left", "right", "top", "bottom")
HELD_PAIRS_PERCENT, HELD_COLOURS_PERCENT = 5, 12
NEVER_ASKED_PERCENT = 15  # of the held-out pairs


@dataclass(frozen=True)
class Concept:
    """One drawable thing; `synonyms` hold its emoji name where that differs and names nothing else."""

    word: str
    label: str
    code: str
    synonyms: tuple[str, ...]

    @property
    def noun(self) -> str:
        """The word without a colour in front ("red apple" -> "apple")."""
        first, _, rest = self.word.partition(" ")
        return rest if rest and (first in HUES or first in BACKGROUNDS) else self.word


@cache
def emojibase() -> list[dict]:
    """All entries of emojibase."""
    return json.loads(EMOJIBASE.read_text())


def load(count: int | None = None) -> list[Concept]:
    """The first `count` lines of concepts.txt."""
    by_label = {e["label"]: code(e["hexcode"]) for e in emojibase()}
    lines = [line.split("|") for line in CONCEPTS.read_text().splitlines() if line and not line.startswith("#")]
    words = {line[0].strip() for line in lines}
    found = []
    for word, label, synonyms in ((part.strip() for part in line) for line in lines):
        others = dict.fromkeys([label.lower(), *(s.strip() for s in synonyms.split(",") if s.strip())])
        found.append(Concept(word, label, by_label[label], tuple(s for s in others if s not in words)))
    return found[:count]


def phrases() -> list[str]:
    """Everything whose word pieces the text encoder must keep."""
    names = [p for e in emojibase() for p in (e["label"], *e.get("tags", []))]
    ours = [p for c in load() for p in (c.word, *c.synonyms)]
    return [*names, *ours, *(w for words in STYLE_WORDS.values() for w in words), *BACKGROUNDS, *PLACES, "on a background, at the, of, and"]


@cache
def prototype_seen() -> dict:
    """What the warm start was trained on, and what it never saw: hold-outs must respect both."""
    return json.loads((HERE / "prototype_seen.json").read_text())


def percentile(key: str) -> int:
    """A fixed number in 0..99 for a string: hold-outs stay the same when the list grows."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 100


def held_pair(concept: Concept, style: str) -> bool:
    """True if training must never see this concept in this style."""
    seen = prototype_seen()
    if concept.label.lower() in seen["labels"] and style != "minimal":
        return [concept.label.lower(), style] in seen["held_pairs"]
    return percentile(f"pair:{concept.label}:{style}") < HELD_PAIRS_PERCENT


def never_asked(concept: Concept, style: str) -> bool:
    """True for some of the pairs that are held out: of the rest training may see a translation, of these nothing at all."""
    return held_pair(concept, style) and percentile(f"never:{concept.label}:{style}") < NEVER_ASKED_PERCENT


def held_colour(concept: Concept, colour: str) -> bool:
    """True if training must never see this concept in this colour word."""
    seen = prototype_seen()
    if concept.label.lower() in seen["labels"]:
        return [concept.label.lower(), colour] in seen["held_colours"]
    return percentile(f"colour:{concept.label}:{colour}") < HELD_COLOURS_PERCENT


def styles() -> tuple[str, ...]:
    """Keys of the styles that the generator learns."""
    return GENERATOR_STYLES
