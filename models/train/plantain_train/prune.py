"""Structured pruning: fewer inner blocks and narrower feed-forward parts; tune afterwards with `teacher --start`.

What goes is what the prediction from noise misses least, measured on prompts of the pool: blocks one after the other by the error
that their absence makes, channels by the mean square of what they add to the residual stream.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import flow
from .net import Generator, TransformerBlock
from .pool import Pool
from .teacher import Batches, first_weights

PROMPTS = 512


@torch.no_grad()
def least_missed(net: Generator, inputs: tuple[Tensor, ...], wanted: Tensor) -> tuple[int, float]:
    """The inner block without which the prediction is nearest to `wanted`, and the mean squared error then."""
    errors, blocks = [], net.middle
    for number in range(len(blocks)):
        net.middle = nn.ModuleList(b for i, b in enumerate(blocks) if i != number)
        errors.append(float(F.mse_loss(net(*inputs), wanted)))
    net.middle = blocks
    return min(range(len(errors)), key=errors.__getitem__), min(errors)


@torch.no_grad()
def channel_powers(net: Generator, blocks: list[TransformerBlock], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """For each block, the mean square of what each feed-forward channel adds: its activation's times its outgoing weights'."""
    powers: list[Tensor] = []
    hooks = [b.ff_out.register_forward_pre_hook(lambda layer, given: powers.append((given[0] ** 2).mean((0, 1)) * (layer.weight ** 2).sum(0)))
             for b in blocks]
    net(*inputs)
    for hook in hooks:
        hook.remove()
    return powers


def narrowed(block: TransformerBlock, powers: Tensor, keep: int) -> None:
    """Keeps the `keep` feed-forward channels that add most."""
    rows = powers.argsort(descending=True)[:keep].sort()[0]
    weight_in, weight_out = block.ff_in.weight.data, block.ff_out.weight.data
    inner, outer = nn.Linear(weight_in.shape[1], keep), nn.Linear(keep, weight_out.shape[0])
    inner.weight.data, inner.bias.data = weight_in[rows].clone(), block.ff_in.bias.data[rows].clone()
    outer.weight.data, outer.bias.data = weight_out[:, rows].clone(), block.ff_out.bias.data.clone()
    block.ff_in, block.ff_out = inner, outer


def pruned(net: Generator, inputs: tuple[Tensor, ...], share: float, drop: int) -> Generator:
    """A smaller net: `share` of each feed-forward part is kept, `drop` inner blocks go. `net` is used up."""
    with torch.no_grad():
        wanted = net(*inputs)
    for _ in range(drop):
        number, error = least_missed(net, inputs, wanted)
        del net.middle[number]
        print(f"prune: inner block {number} goes, mean squared error {error:.4f} of {float(wanted.var()):.4f}", flush=True)
    blocks = [net.enter_attention, *net.middle, net.leave_attention]
    for block, powers in zip(blocks, channel_powers(net, blocks, inputs), strict=True):
        narrowed(block, powers, max(16, round(block.ff_in.out_features * share / 16) * 16))
    smaller = Generator(**{**net.config, "depth": len(net.middle), "ff": [b.ff_in.out_features for b in blocks]})
    smaller.load_state_dict(net.state_dict())
    with torch.no_grad():
        print(f"prune: mean squared error {float(F.mse_loss(smaller(*inputs), wanted)):.4f} before tuning", flush=True)
    return smaller.eval()


def prune(source: Path, target: Path, share: float, drop: int) -> None:
    """Writes a smaller checkpoint (`ema` and `config`)."""
    saved, net, pool = torch.load(source, weights_only=True), first_weights(source).eval(), Pool()
    before = sum(p.numel() for p in net.parameters())
    states, mask = pool.text(Batches(pool, PROMPTS, 41).next())
    smaller = pruned(net, (flow.noise(PROMPTS, 42), torch.zeros(PROMPTS), states, mask), share, drop)
    torch.save({"ema": smaller.state_dict(), "config": smaller.config, "images": saved.get("images", 0)}, target)
    print(f"prune: {before} -> {sum(p.numel() for p in smaller.parameters())} parameters", flush=True)
