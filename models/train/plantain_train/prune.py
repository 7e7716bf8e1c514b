"""Structured pruning: narrower feed-forward parts and fewer inner blocks; tune afterwards with the teacher's or student's stage."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from .net import Generator, TransformerBlock

CHECKPOINT_NAME = "pruned.pt"


def narrowed(block: TransformerBlock, keep: int) -> None:
    """Keeps the `keep` feed-forward channels with the largest product of incoming and outgoing weight norms."""
    weight_in, weight_out = block.ff_in.weight.data, block.ff_out.weight.data
    importance = weight_in.norm(dim=1) * weight_out.norm(dim=0)
    rows = importance.argsort(descending=True)[:keep].sort()[0]
    inner, outer = nn.Linear(weight_in.shape[1], keep), nn.Linear(keep, weight_out.shape[0])
    inner.weight.data, inner.bias.data = weight_in[rows].clone(), block.ff_in.bias.data[rows].clone()
    outer.weight.data, outer.bias.data = weight_out[:, rows].clone(), block.ff_out.bias.data.clone()
    block.ff_in, block.ff_out = inner, outer


def prune(source: Path, target: Path, share: float, dropped: tuple[int, ...]) -> Generator:
    """Writes a smaller checkpoint (`ema` and `config`): `share` of each feed-forward part is kept, `dropped` inner blocks go."""
    saved = torch.load(source, weights_only=True)
    net = Generator(**saved.get("config", {}))
    net.load_state_dict(saved["ema"])
    before = sum(p.numel() for p in net.parameters())
    for number in sorted(dropped, reverse=True):
        del net.middle[number]
    blocks = [net.enter_attention, *net.middle, net.leave_attention]
    for block in blocks:
        narrowed(block, max(16, round(block.ff_in.out_features * share / 16) * 16))
    config = {**net.config, "depth": len(net.middle), "ff": [b.ff_in.out_features for b in blocks]}
    smaller = Generator(**config)
    smaller.load_state_dict(net.state_dict())
    torch.save({"ema": smaller.state_dict(), "config": config, "images": saved.get("images", 0)}, target)
    print(f"prune: {before} -> {sum(p.numel() for p in smaller.parameters())} parameters", flush=True)
    return smaller
