"""The training pool: small images, recipes that combine them, and the text states of every caption, all made once.

A recipe is one row of int32: kind, image, other image or -1, background, place, caption. `Pool.batch` turns recipes into 64 px
pictures in [-1, 1]; nothing random happens there.
"""

from __future__ import annotations

import json
import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import captions, text
from .concepts import (
    BACKGROUNDS,
    HUES,
    PLACES,
    Concept,
    held_colour,
    held_pair,
    load,
    phrases,
    styles,
)
from .loop import mixed_precision
from .net import TEXT_TOKENS, TEXT_WIDTH
from .paths import POOL, TRANSLATED
from .render import stored

KINDS = ("plain", "background", "colour", "place", "pair")
GROUNDS = list(BACKGROUNDS)
KIND, IMAGE, OTHER, GROUND, PLACE, CAPTION = range(6)
SMALL = 32
CORNERS = {"small": (16, 16), "left": (0, 16), "right": (32, 16), "top": (16, 0), "bottom": (16, 32)}  # x, y of a 32 px object


def premultiplied(rgba: np.ndarray, side: int) -> np.ndarray:
    """uint8 RGBA [S, S, 4] -> uint8 [side, side, 4], area-averaged, colour multiplied by alpha."""
    a = rgba.astype(np.float32)
    a[..., :3] *= a[..., 3:] / 255
    factor = rgba.shape[0] // side
    return np.rint(a.reshape(side, factor, side, factor, 4).mean((1, 3))).astype(np.uint8)


def dominant_hue(rgba: np.ndarray) -> tuple[float, float, float] | None:
    """Main hue in degrees, share of the coloured pixels near it, share of the object that is coloured; None if hardly coloured."""
    hsv = np.asarray(Image.fromarray(np.ascontiguousarray(rgba[..., :3])).convert("HSV")).astype(np.float32)
    solid = rgba[..., 3] > 128
    coloured = (hsv[..., 1] > 80) & (hsv[..., 2] > 50) & solid
    if coloured.mean() < 0.02:
        return None
    hue = hsv[..., 0][coloured] / 255 * 360

    def distance(centre: float) -> np.ndarray:
        return np.abs((hue - centre + 180) % 360 - 180)

    shares = [float((distance(c) < 25).mean()) for c in range(0, 360, 10)]
    near = np.deg2rad(hue[distance(10.0 * int(np.argmax(shares))) < 25])
    mean = np.rad2deg(np.arctan2(np.sin(near).mean(), np.cos(near).mean())) % 360
    return float(mean), max(shares), float(coloured.sum() / max(1, solid.sum()))


def shifted(rgba: np.ndarray, degrees: float) -> np.ndarray:
    """The picture with every hue turned."""
    hsv = np.asarray(Image.fromarray(np.ascontiguousarray(rgba[..., :3])).convert("HSV")).copy()
    hsv[..., 0] = ((hsv[..., 0].astype(np.float32) + degrees / 360 * 255) % 256).astype(np.uint8)
    return np.concatenate([np.asarray(Image.fromarray(hsv, "HSV").convert("RGB")), rgba[..., 3:]], -1)


class Builder:
    """Collects images, recipes and captions."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.images: list[np.ndarray] = []
        self.small: list[np.ndarray] = []  # same numbers as the first images
        self.recipes: list[tuple[int, ...]] = []
        self.captions: dict[str, int] = {}
        self.members: list[tuple[Concept, str]] = []
        self.owners: list[int] = []  # for each image, the one whose recolouring it is, or itself
        self.tests: list[tuple[str, str, str]] = []  # held-out colour prompts: prompt, colour, word

    def recipe(self, kind: str, image: int, caption: str, other: int = -1, ground: str = "white", place: str = "whole") -> None:
        """One more way to make a training picture."""
        number = self.captions.setdefault(caption, len(self.captions))
        self.recipes.append((KINDS.index(kind), image, other, GROUNDS.index(ground), PLACES.index(place), number))

    def ground(self, style: str) -> str:
        """A random coloured background (black drawings do not stand on black)."""
        return self.rng.choice([g for g in GROUNDS[1:] if not (style == "mono" and g == "black")])

    def plain(self, concept: Concept, style: str, rgba: np.ndarray) -> int:
        """One more picture and its recipes alone on white; gives its number."""
        image = len(self.images)
        self.images.append(premultiplied(rgba, 64))
        self.small.append(premultiplied(rgba, SMALL))
        self.members.append((concept, style))
        self.owners.append(image)
        for _ in range(6):
            self.recipe("plain", image, captions.plain(concept, style, self.rng))
        return image

    def single(self, concept: Concept, style: str, rgba: np.ndarray) -> None:
        """All recipes with one object, except colours."""
        image = self.plain(concept, style, rgba)
        for _ in range(5):
            ground = self.ground(style)
            self.recipe("background", image, captions.background(concept, style, ground, self.rng), ground=ground)
        for place in self.rng.sample(PLACES, 4):
            self.recipe("place", image, captions.placed(concept, style, place, self.rng), place=place)

    def translated(self, concept: Concept, style: str, rgb: np.ndarray) -> None:
        """The plain recipes of a picture that the translator drew, which has no transparent part."""
        self.plain(concept, style, np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], -1))

    def colours(self, concept: Concept, style: str, owner: int, rgba: np.ndarray) -> None:
        """Recipes with the object's hue turned to a named colour."""
        found = dominant_hue(rgba)
        first = concept.word.split()[0]
        if style == "mono" or found is None or found[1] < 0.55 or found[2] < 0.35 or (first in HUES and first != "red"):
            return
        for colour, degrees in HUES.items():
            if held_colour(concept, colour):
                self.tests.append((f"a {colour} {concept.noun}", colour, concept.word))
                continue
            image = len(self.images)
            self.images.append(premultiplied(shifted(rgba, degrees - found[0]), 64))
            self.owners.append(owner)
            self.recipe("colour", image, captions.coloured(concept, style, colour, None, self.rng))
            if self.rng.random() < 0.4:
                ground = self.rng.choice([g for g in GROUNDS[1:] if g != colour])
                self.recipe("colour", image, captions.coloured(concept, style, colour, ground, self.rng), ground=ground)

    def pairs(self, count: int, common: int = 256) -> None:
        """Recipes with two objects of one style side by side; a quarter of them among the `common` first pictures."""
        by_style: dict[str, list[int]] = {}
        for i, (_, style) in enumerate(self.members):
            by_style.setdefault(style, []).append(i)
        for n in range(count):
            style = self.rng.choice(sorted(by_style))
            known = by_style[style]
            a, b = self.rng.sample(known[:common] if n % 4 == 0 else known, 2)
            self.recipe("pair", a, captions.pair(self.members[a][0], self.members[b][0], style, self.rng), other=b)


def build(count: int, pairs: int = 24000, seed: int = 0) -> None:
    """Makes the pool for the first `count` concepts."""
    renders, at = stored()
    builder, concepts = Builder(seed), load(count)
    trained = [(c, s) for c in concepts for s in styles() if (c.code, s) in at and not held_pair(c, s)]
    for concept, style in trained:
        builder.single(concept, style, renders[at[concept.code, style]])
    if TRANSLATED.exists():
        drawn, by_code = np.load(TRANSLATED), {c.code: c for c in concepts}
        for picture, c, style in zip(drawn["pictures"], drawn["codes"], drawn["styles"], strict=True):
            if c in by_code:
                builder.translated(by_code[c], str(style), picture)
    builder.pairs(pairs)
    for owner, (concept, style) in enumerate(trained):
        builder.colours(concept, style, owner, renders[at[concept.code, style]])
    recipes = np.array(builder.recipes, np.int32)
    print(f"pool: {len(concepts)} concepts, {len(trained)} pictures, {len(builder.members) - len(trained)} translated, "
          f"{len(builder.images) - len(builder.members)} recoloured, {len(recipes)} recipes, "
          f"{len(builder.captions)} captions; by kind {dict(zip(KINDS, np.bincount(recipes[:, 0]).tolist(), strict=True))}", flush=True)
    POOL.mkdir(parents=True, exist_ok=True)
    np.save(POOL / "images.npy", np.stack(builder.images))
    np.save(POOL / "small.npy", np.stack(builder.small))
    np.save(POOL / "owners.npy", np.array(builder.owners, np.int32))
    np.save(POOL / "recipes.npy", recipes)
    (POOL / "pool.json").write_text(json.dumps({
        "concepts": count, "captions": list(builder.captions), "colour_tests": builder.tests,
        "members": [(c.word, c.code, s) for c, s in builder.members], "translated": len(builder.members) - len(trained)}))
    encode_captions(list(builder.captions))


def encode_captions(sentences: list[str], batch: int = 256) -> None:
    """Text states of all captions, without padding: states.npy [tokens, 384] f16 and starts.npy [captions + 1]."""
    folder = text.model_folder()
    keep = text.pruned_vocabulary(folder, phrases())
    tokenizer = text.shipped_tokenizer(folder, keep)
    encoder = text.trained(keep)
    ids, mask = text.encode(tokenizer, sentences)
    lengths = mask.sum(1)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    states = np.zeros((starts[-1], TEXT_WIDTH), np.float16)
    order = np.argsort(lengths, kind="stable")
    for i in range(0, len(order), batch):
        rows = order[i:i + batch]
        width = lengths[rows].max()
        with torch.no_grad(), mixed_precision():
            h = encoder(torch.from_numpy(ids[rows, :width]), torch.from_numpy(mask[rows, :width])).half().numpy()
        for row, state in zip(rows, h, strict=True):
            states[starts[row]:starts[row + 1]] = state[:lengths[row]]
        if i // batch % 20 == 0:
            print(f"pool: text states {i} of {len(order)}", flush=True)
    np.save(POOL / "states.npy", states)
    np.save(POOL / "starts.npy", starts)


class Pool:
    """Reads a built pool; one per training process."""

    def __init__(self) -> None:
        self.images, self.small = (torch.from_numpy(np.load(POOL / f"{n}.npy")) for n in ("images", "small"))
        self.recipes, self.owners = np.load(POOL / "recipes.npy"), np.load(POOL / "owners.npy")
        self.states, self.starts = np.load(POOL / "states.npy", mmap_mode="r"), np.load(POOL / "starts.npy")
        self.info = json.loads((POOL / "pool.json").read_text())
        self.grounds = torch.tensor([BACKGROUNDS[g] for g in GROUNDS], dtype=torch.float32) / 255

    def pictures(self, recipes: np.ndarray) -> Tensor:
        """Recipes [B, 6] -> [B, 3, 64, 64] in [-1, 1]."""
        layer = self.images[recipes[:, IMAGE]]
        for i in np.flatnonzero((recipes[:, OTHER] >= 0) | (recipes[:, PLACE] > 0)):
            canvas = torch.zeros_like(layer[i])
            if recipes[i, OTHER] >= 0:
                spots = [(recipes[i, IMAGE], "left"), (recipes[i, OTHER], "right")]
            else:
                spots = [(recipes[i, IMAGE], PLACES[recipes[i, PLACE]])]
            for image, place in spots:
                x, y = CORNERS[place]
                canvas[y:y + SMALL, x:x + SMALL] = self.small[image]
            layer[i] = canvas
        layer = layer.permute(0, 3, 1, 2).float() / 255
        ground = self.grounds[recipes[:, GROUND]][:, :, None, None]
        return (layer[:, :3] + (1 - layer[:, 3:]) * ground) * 2 - 1

    def text(self, recipes: np.ndarray) -> tuple[Tensor, Tensor]:
        """Recipes -> text states [B, 20, 384] and mask [B, 20]."""
        states = np.zeros((len(recipes), TEXT_TOKENS, TEXT_WIDTH), np.float32)
        mask = np.zeros(states.shape[:2], np.float32)
        for i, c in enumerate(recipes[:, CAPTION]):
            own = self.states[self.starts[c]:self.starts[c + 1]]
            states[i, :len(own)], mask[i, :len(own)] = own, 1
        return torch.from_numpy(states), torch.from_numpy(mask)
