"""Prompts for sample sheets, and their text states."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from tokenizers import Tokenizer

from . import text
from .concepts import phrases

SHEET_PROMPTS = [
    "a cat, 3d render", "a dog, flat", "a red apple, cartoon", "a car, minimal", "a house, black and white", "a rose, 3d render",
    "a pizza, flat", "a guitar, cartoon", "an elephant, 3d render", "a fox, flat", "a shark, cartoon", "a rocket, minimal",
    "a key, black and white", "a dragon, cartoon", "a bicycle, flat", "a camera, 3d render", "a blue car, 3d render",
    "a green house, flat", "a purple umbrella, cartoon", "a pink pig, minimal", "a cat on a blue background, flat",
    "a robot on a yellow background, 3d render", "a lemon on a green background, cartoon", "a small cat, 3d render",
    "a bird on the left, flat", "a cat and a dog, flat", "a banana and a strawberry, 3d render", "a car and a tree, cartoon",
    "a bunny, cartoon", "a lorry, flat", "a glass of beer, 3d render", "a sunflower, minimal"]


@cache
def encoder(whole: bool = False) -> tuple[Tokenizer, text.TextEncoder]:
    """The tokenizer and text encoder with the cut vocabulary, loaded once: the model's, or with all of the package's layers."""
    folder = text.model_folder()
    keep = text.pruned_vocabulary(folder, phrases())
    return text.shipped_tokenizer(folder, keep), text.TextEncoder(folder, keep) if whole else text.trained(keep)


class PromptStates:
    """Text states of some prompts: `states` [N, 20, 384], `mask` [N, 20]."""

    def __init__(self, prompts: list[str], whole: bool = False) -> None:
        tokenizer, network = encoder(whole)
        ids, mask = text.encode(tokenizer, prompts)
        self.mask = torch.from_numpy(mask.astype(np.float32))
        with torch.no_grad():
            self.states = torch.cat([network(torch.from_numpy(ids[i:i + 64]), torch.from_numpy(mask[i:i + 64]))
                                     for i in range(0, len(prompts), 64)])
