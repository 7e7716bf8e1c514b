"""A shallower text encoder: some of MiniLM's layers, trained until they give the states of all of them.

DistilBERT's way (Sanh et al. 2019) with one loss: the squared error of the last states, which is what the generator reads. The texts are the
pool's captions and, so that words outside of them keep their meaning, short texts of random words.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from . import prompts, text
from .concepts import STYLE_WORDS
from .loop import Plan, Setup, Step, mixed_precision, run
from .pool import Pool, encode_captions

STRANGE_SHARE = 0.25
SORTED = 64  # batches whose texts are sorted by length together
SAMPLE = 512
FREQUENT = 12000  # the vocabulary is sorted by frequency; the first words of it make the random texts


class Texts:
    """Endless batches of texts of about the same length: ids and mask [B, T]."""

    def __init__(self, tokenizer: Tokenizer, captions: list[str], batch: int, seed: int) -> None:
        self.tokenizer, self.captions, self.batch, self.rng = tokenizer, captions, batch, np.random.default_rng(seed)
        vocabulary = tokenizer.get_vocab()
        self.words = sorted(w for w, i in vocabulary.items() if w.isalpha() and len(w) > 2 and i < FREQUENT)
        self.styles = [w for spellings in STYLE_WORDS.values() for w in spellings]

    def strange(self) -> str:
        """One to four random words, mostly in a style, as prompts always are."""
        words = " ".join(self.rng.choice(self.words, self.rng.integers(1, 5)))
        return f"{words}, {self.rng.choice(self.styles)}" if self.rng.random() < 0.7 else words

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            count = SORTED * self.batch
            strange = round(count * STRANGE_SHARE)
            chosen = [self.captions[i] for i in self.rng.integers(0, len(self.captions), count - strange)]
            ids, mask = text.encode(self.tokenizer, chosen + [self.strange() for _ in range(strange)])
            order = np.argsort(mask.sum(1), kind="stable").reshape(SORTED, self.batch)
            for rows in self.rng.permutation(order):
                width = mask[rows].sum(1).max()
                yield torch.from_numpy(ids[rows, :width]), torch.from_numpy(mask[rows, :width])


def mean_error(ours: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of the states of tokens that count."""
    return F.mse_loss(ours[mask == 1], wanted[mask == 1])


@torch.no_grad()
def best_layers(encoder: text.TextEncoder, count: int, ids: Tensor, mask: Tensor) -> text.EncoderLayers:
    """Those `count` layers, in their order, that alone come nearest to all of them."""
    given, layers = encoder.embed(ids, mask), list(encoder.body.layers)
    wanted, found = encoder.body(*given), []
    for chosen in itertools.combinations(range(len(layers)), count):
        error = float(mean_error(text.EncoderLayers(layers[i] for i in chosen)(*given), wanted, mask))
        found.append((error, chosen))
    error, chosen = min(found)
    print(f"shallow: layers {chosen} of {len(layers)}, mean squared error {error:.4f} of {float(wanted[mask == 1].var()):.4f}", flush=True)
    return text.EncoderLayers(layers[i] for i in chosen)


def setup(encoder: text.TextEncoder, tokenizer: Tokenizer, captions: list[str], batch: int) -> Setup:
    """The step function's maker (see loop.run)."""

    def for_worker(worker: int, steps_done: int) -> Step:
        texts = iter(Texts(tokenizer, captions, batch, 51 + 1000 * worker + steps_done))

        def step(net: Callable[..., Tensor], _: int) -> tuple[Tensor, dict[str, float]]:
            ids, mask = next(texts)
            with mixed_precision():
                with torch.no_grad():
                    given = encoder.embed(ids, mask)
                    wanted = encoder.body(*given).float()
                loss = mean_error(net(*given).float(), wanted, mask)
            return loss, {}

        return step

    return for_worker


def train(layers: int, stop_at: float, batch: int = 64, workers: int = 2) -> None:
    """Trains the encoder with `layers` layers until `stop_at`, measures, and encodes the pool's captions with it."""
    torch.manual_seed(0)
    (tokenizer, encoder), captions = prompts.encoder(whole=True), Pool().info["captions"]
    # A copy: what it learns must not change the layers that it learns from.
    net = copy.deepcopy(best_layers(encoder, layers, *next(iter(Texts(tokenizer, captions, SAMPLE, 50))))).requires_grad_(True)
    plan = Plan("shallow", text.CHECKPOINT, stop_at, batch=batch, rate=4e-4, decay=0.9, weight_decay=0.01, ema=0.99, workers=workers)
    saved = run(plan, net, setup(encoder, tokenizer, captions, batch))
    net.load_state_dict(saved["ema"])
    measure(encoder, net.eval(), Texts(tokenizer, captions, SAMPLE, 49))
    encode_captions(captions)


@torch.no_grad()
def measure(encoder: text.TextEncoder, net: text.EncoderLayers, texts: Texts) -> tuple[float, float]:
    """Prints and gives how near mean states come, as cosines at the median and at the worst of 5 in 100."""
    found = []
    for ids, mask in itertools.islice(texts, 4):
        given, column = encoder.embed(ids, mask), mask.unsqueeze(2)
        ours, wanted = ((layers(*given) * column).sum(1) for layers in (net, encoder.body))
        found.append(F.cosine_similarity(ours, wanted))
    cosines = torch.cat(found)
    middle, low = float(cosines.median()), float(cosines.quantile(0.05))
    print(f"shallow: cosine of a text's mean state to all layers', n {len(cosines)}: median {middle:.4f}, 5th percentile {low:.4f}", flush=True)
    return middle, low
