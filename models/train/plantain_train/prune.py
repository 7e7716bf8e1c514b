"""Structured pruning: a generator with fewer inner blocks and narrower feed-forward parts, and a narrower refiner.

What goes of the generator is what the prediction from noise misses least, measured on prompts of the pool: blocks one after the other by
the error that their absence makes, channels by the mean square of what they add to the residual stream. The refiner's channels go by the mean
square of what its convolutions make of them. Tune afterwards with `teacher --start` and `refine --start`.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import flow
from .decode import REFINER
from .latent import PatchBasis
from .net import Generator, Refiner, TransformerBlock, loaded
from .paths import BASIS
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


@torch.no_grad()
def narrower(net: Refiner, images: Tensor, width: int) -> Refiner:
    """A refiner of `width` channels. `images` [B, 3, S, S] are what it is measured on."""
    powers: dict[nn.Conv2d, Tensor] = {}

    def measure(layer: nn.Conv2d, given: tuple[Tensor]) -> None:
        powers[layer] = (given[0] ** 2).mean((0, 2, 3)) * (layer.weight ** 2).sum((0, 2, 3))

    readers = [net.out, *(conv for block in net.blocks for conv in (block.conv1, block.conv2))]
    hooks = [conv.register_forward_pre_hook(measure) for conv in readers]
    net(images)
    for hook in hooks:
        hook.remove()

    def most(power: Tensor) -> Tensor:
        return power.argsort(descending=True)[:width].sort()[0]

    stream = most(powers[net.out] + sum(powers[block.conv1] for block in net.blocks))
    small = Refiner(width, len(net.blocks))
    small.phase.copy_(net.phase)
    every = torch.arange(net.out.out_channels)

    def copy(into: nn.Conv2d, source: nn.Conv2d, outs: Tensor, ins: Tensor | None = None) -> None:
        weight = source.weight[outs]
        into.weight.copy_(weight if ins is None else weight[:, ins])
        if source.bias is not None:
            into.bias.copy_(source.bias[outs])

    copy(small.stem, net.stem, stream)
    copy(small.phase_in, net.phase_in, stream)
    copy(small.out, net.out, every, stream)
    for mine, theirs in zip(small.blocks, net.blocks, strict=True):
        inner = most(powers[theirs.conv2])
        copy(mine.conv1, theirs.conv1, inner, stream)
        copy(mine.conv2, theirs.conv2, stream, inner)
    return small.eval()


def narrow(target: Path, width: int) -> None:
    """Writes a narrower one of the work folder's refiner (`ema` and `config`), measured on pictures as it is given them."""
    net, pool, basis = loaded(Refiner, torch.load(REFINER, weights_only=True)), Pool(), PatchBasis.load(BASIS)
    small = narrower(net, basis(basis.encode(pool.pictures(Batches(pool, 64, 43).next()))), width)
    torch.save({"ema": small.state_dict(), "config": small.config}, target)
    print(f"narrow: {net.config['width']} -> {width} channels, "
          f"{sum(p.numel() for p in net.parameters())} -> {sum(p.numel() for p in small.parameters())} parameters", flush=True)


def prune(source: Path, target: Path, share: float, drop: int) -> None:
    """Writes a smaller checkpoint (`ema` and `config`)."""
    saved, net, pool = torch.load(source, weights_only=True), first_weights(source).eval(), Pool()
    before = sum(p.numel() for p in net.parameters())
    states, mask = pool.text(Batches(pool, PROMPTS, 41).next())
    smaller = pruned(net, (flow.noise(PROMPTS, 42), torch.zeros(PROMPTS), states, mask), share, drop)
    torch.save({"ema": smaller.state_dict(), "config": smaller.config, "images": saved.get("images", 0)}, target)
    print(f"prune: {before} -> {sum(p.numel() for p in smaller.parameters())} parameters", flush=True)
