"""Exports a checkpoint as the bundled model's ONNX folder, and compares the folder with PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from . import enlarge, flow, text
from .chain import Chain
from .concepts import BACKGROUNDS, HUES, STYLE_WORDS, load, phrases
from .decode import Decoder
from .export import Card, export
from .latent import PatchBasis
from .net import Generator, Refiner, loaded
from .paths import BASIS, POOL
from .prompts import SHEET_PROMPTS, PromptStates
from .sheet import sheet

PROVENANCE = (
    "Trained on renders of open icon sets: Fluent Emoji 3d, flat and high contrast (Microsoft, MIT), Noto Emoji (Google, Apache-2.0), Twemoji "
    "(Twitter, Inc and other contributors, CC-BY-4.0); names from emojibase (MIT). Refiner also on Fluent Emoji, Noto v1 (Apache-2.0), "
    "FxEmojis (Mozilla, Apache-2.0) and EmojiOne 2 (CC-BY-4.0). Text encoder: from all-MiniLM-L6-v2 (Apache-2.0), fewer "
    "layers, vocabulary cut. Draws icons of known words, not photographs.")


def ship(checkpoint: Path, out: Path, name: str, steps: int = 1, guidance: float = 1.0) -> None:
    """Writes the folder, a sample sheet in it, and prints how far it is from PyTorch."""
    saved = torch.load(checkpoint, weights_only=True)
    net = loaded(Generator, saved)
    decoder = Decoder()
    if decoder.refiner is None:
        raise SystemExit("no refiner.pt in the work folder; run `python -m plantain_train refine` first")
    concepts = load(json.loads((POOL / "pool.json").read_text())["concepts"])
    synonyms = list(dict.fromkeys(s for c in concepts for s in c.synonyms))
    card = Card(name, [c.word for c in concepts], {k: v[0] for k, v in STYLE_WORDS.items()}, "minimal", list(BACKGROUNDS), list(HUES),
                steps=steps, guidance_scale=guidance, synonyms=synonyms,
                licence="MIT OR Apache-2.0 (weights); the training data's licences are in NOTICE.md", provenance=PROVENANCE)
    export(out, net, decoder.refiner, PatchBasis.load(BASIS), text.pruned_vocabulary(text.model_folder(), phrases()), card,
           trained_enlarger())
    compare(net, decoder, out, steps, guidance)


def trained_enlarger() -> Refiner | None:
    """The stage to 256 px, if it was trained."""
    if not enlarge.CHECKPOINT.exists():
        return None
    return loaded(Refiner, {"config": enlarge.CONFIG, **torch.load(enlarge.CHECKPOINT, weights_only=True)})


def compare(net: Generator, decoder: Decoder, folder: Path, steps: int, guidance: float) -> int:
    """Draws the sheet's prompts with both; gives the largest difference of a byte and writes sample.png."""
    chain, states, empty, images, worst = Chain(folder), PromptStates(SHEET_PROMPTS), PromptStates([""]), [], 0
    for i, prompt in enumerate(SHEET_PROMPTS):
        start = flow.noise(1, i)
        latent = flow.sample(net, states.states[i:i + 1], states.mask[i:i + 1], start, steps, guidance, (empty.states, empty.mask))
        ours = decoder.whole(latent)[0]
        theirs = chain.draw(prompt, noise=start.numpy())
        worst = max(worst, int(np.abs(ours.astype(int) - theirs).max()))
        images.append(theirs)
    sheet(images, SHEET_PROMPTS, 8, folder / "sample.png")
    print(f"ship: {folder}, {len(SHEET_PROMPTS)} prompts, largest difference to PyTorch {worst} of 255", flush=True)
    return worst
