"""The two trained networks, in the form in which they are exported.

`Generator` predicts the clean latent [B, 48, 8, 8] from a noisy one, a time and text states; `Refiner` turns the decoded
64 px image into 128 px. Everything is static in shape except the batch. Attention is written out: importers meet plain operators, and
on a CPU its backward pass is faster than the fused kernel's.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEXT_WIDTH = 384
TEXT_TOKENS = 20
LATENT_CHANNELS = 48
LATENT_SIDE = 8
MASK_BIAS = 1e4


class RmsNorm(nn.Module):
    """Root-mean-square norm over the last axis, computed in f32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        x = to(x, torch.float32)
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * self.weight


class TokenConv(nn.Module):
    """3x3 convolution on tokens [B, side*side, C]."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width_out, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return to_tokens(self.conv(to_grid(x)))


class ConvBlock(nn.Module):
    """Residual pair of 3x3 convolutions, the second one modulated by the condition."""

    def __init__(self, width_in: int, width_out: int, width_cond: int) -> None:
        super().__init__()
        self.width = width_out
        self.norm1, self.norm2 = RmsNorm(width_in), RmsNorm(width_out)
        self.conv1, self.conv2 = TokenConv(width_in, width_out), TokenConv(width_out, width_out)
        self.modulate = modulation(width_cond, width_out, "sbs")
        self.skip = nn.Linear(width_in, width_out) if width_in != width_out else nn.Identity()
        with torch.no_grad():
            self.conv2.conv.weight.mul_(0.5)
            self.conv2.conv.bias.mul_(0.5)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        scale, shift, gate = self.modulate(cond).unsqueeze(1).split(self.width, -1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h) * scale + shift))
        return self.skip(x) + gate * h


class Attention(nn.Module):
    """Multi-head attention with normalised queries and keys; `bias` is added to the scores."""

    def __init__(self, width: int, width_kv: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width_head = heads, width // heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width_kv, width, bias=False)
        self.v = nn.Linear(width_kv, width, bias=False)
        self.out = zero(nn.Linear(width, width))
        self.q_norm, self.k_norm = RmsNorm(self.width_head), RmsNorm(self.width_head)

    def split(self, x: Tensor) -> Tensor:
        """[B, T, C] -> [B, heads, T, C / heads]"""
        return x.view(-1, x.shape[1], self.heads, self.width_head).transpose(1, 2)

    def forward(self, x: Tensor, kv: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(kv)), self.split(self.v(kv))
        q, k = to(self.q_norm(q), v.dtype), to(self.k_norm(k), v.dtype)
        scores = q @ k.transpose(2, 3) * (1.0 / math.sqrt(self.width_head))
        o = torch.softmax(scores if bias is None else scores + bias, -1) @ v
        return self.out(o.transpose(1, 2).reshape(-1, x.shape[1], x.shape[2]))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the text and a feed-forward part; the condition modulates the first and last."""

    def __init__(self, width: int, width_cond: int, width_text: int, heads: int, width_ff: int | None = None) -> None:
        super().__init__()
        self.width, width_ff = width, width_ff or 4 * width
        self.norm1, self.norm2, self.norm3 = RmsNorm(width), RmsNorm(width), RmsNorm(width)
        self.self_attention = Attention(width, width, heads)
        self.cross_attention = Attention(width, width_text, heads)
        self.ff_in, self.ff_out = nn.Linear(width, width_ff), zero(nn.Linear(width_ff, width))
        self.modulate = modulation(width_cond, width, "sbsb")

    def forward(self, x: Tensor, cond: Tensor, text: Tensor, bias: Tensor) -> Tensor:
        scale1, shift1, scale3, shift3 = self.modulate(cond).unsqueeze(1).split(self.width, -1)
        h = self.norm1(x) * scale1 + shift1
        x = x + self.self_attention(h, h)
        x = x + self.cross_attention(self.norm2(x), text, bias)
        return x + self.ff_out(F.silu(self.ff_in(self.norm3(x) * scale3 + shift3)))


class Generator(nn.Module):
    """An hourglass over the latent: 8x8 with convolutions and attention, 4x4 with a transformer.

    `sample` [B, 48, 8, 8]; `timestep` [B] or [1], 0 is noise and 1 the picture; `encoder_hidden_states` [B, T, 384];
    `attention_mask` [B, T], 1 for tokens and 0 for padding. Gives the predicted clean latent, [B, 48, 8, 8].
    """

    def __init__(self, outer: int = 128, inner: int = 256, depth: int = 5, cond: int = 128, text: int = 128,
                 ff: list[int] | None = None) -> None:
        super().__init__()
        side, ff = LATENT_SIDE, ff or [4 * outer, *[4 * inner] * depth, 4 * outer]
        self.config = {"outer": outer, "inner": inner, "depth": depth, "cond": cond, "text": text, "ff": ff}
        self.text_in, self.text_out = nn.Linear(TEXT_WIDTH, text), nn.Linear(text, text)
        self.time_in, self.time_out = nn.Linear(128, cond), nn.Linear(cond, cond)
        self.pool = nn.Linear(TEXT_WIDTH, cond)
        frequency = 100.0 * torch.exp(-math.log(1000) * torch.arange(64) / 64)
        self.register_buffer("frequency", frequency[None], persistent=False)
        self.latent_in = nn.Linear(LATENT_CHANNELS, outer)
        self.position_outer = nn.Parameter(torch.randn(1, side * side, outer) * 0.02)
        self.position_inner = nn.Parameter(torch.randn(1, side * side // 4, inner) * 0.02)
        self.enter = ConvBlock(outer, outer, cond)
        self.enter_attention = TransformerBlock(outer, cond, text, outer // 32, ff[0])
        self.down = nn.Conv2d(outer, inner, 2, 2)
        self.middle = nn.ModuleList(TransformerBlock(inner, cond, text, inner // 32, ff[1 + i]) for i in range(depth))
        self.up = nn.Linear(inner, 4 * outer)
        self.join = ConvBlock(2 * outer, outer, cond)
        self.leave_attention = TransformerBlock(outer, cond, text, outer // 32, ff[-1])
        self.leave = ConvBlock(outer, outer, cond)
        self.norm_out = RmsNorm(outer)
        self.latent_out = zero(nn.Linear(outer, LATENT_CHANNELS))

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        text = encoder_hidden_states
        mask = attention_mask.to(torch.float32)
        bias = ((mask - 1.0) * MASK_BIAS).unsqueeze(1).unsqueeze(1)
        column = mask.unsqueeze(2)
        pooled = (text * column).sum(1) / column.sum(1)
        angle = timestep.unsqueeze(1) * self.frequency
        time = self.time_out(F.silu(self.time_in(torch.cat([angle.cos(), angle.sin()], 1))))
        cond = F.silu(time + self.pool(pooled))
        text = self.text_out(F.silu(self.text_in(text)))

        h = self.enter(self.latent_in(to_tokens(sample)) + self.position_outer, cond)
        h = skip = self.enter_attention(h, cond, text, bias)
        h = to_tokens(self.down(to_grid(h))) + self.position_inner
        for block in self.middle:
            h = block(h, cond, text, bias)
        h = to_tokens(F.pixel_shuffle(to_grid(self.up(h)), 2))
        h = self.join(torch.cat([h, skip], -1), cond)
        h = self.leave(self.leave_attention(h, cond, text, bias), cond)
        return to(to_grid(self.latent_out(F.silu(self.norm_out(h)))), torch.float32)


class RefinerBlock(nn.Module):
    """Residual pair of 3x3 convolutions without norms."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)
        with torch.no_grad():
            self.conv2.weight.mul_(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return leaky(x + self.conv2(leaky(self.conv1(x))))


class Refiner(nn.Module):
    """Image [B, 3, S, S] -> [B, 3, 2S, 2S], both in [-1, 1]: a residual over bilinear enlargement, computed at S/2.

    A learned map with a period of 8 px tells the convolutions where in the 8 px patch of the decoder they are.
    """

    def __init__(self, width: int = 64, blocks: int = 3) -> None:
        super().__init__()
        self.config = {"width": width, "blocks": blocks}
        self.stem = nn.Conv2d(3, width, 6, 2, 2)
        self.phase = nn.Parameter(torch.randn(1, 8, 4, 4) * 0.5)
        self.phase_in = nn.Conv2d(8, width, 3, 1, 1, bias=False)
        self.blocks = nn.ModuleList(RefinerBlock(width) for _ in range(blocks))
        self.out = zero(nn.Conv2d(width, 48, 3, 1, 1))
        self.frozen_phase: Tensor | None = None

    def phase_map(self, side: int) -> Tensor:
        """The part of the first layer that does not depend on the picture, [1, width, side, side]."""
        return self.phase_in(self.phase.repeat(1, 1, side // 4, side // 4))

    def freeze(self, side: int) -> None:
        """Fixes the size (`side` = half the input's) so that the export holds a constant."""
        self.frozen_phase = self.phase_map(side).detach()

    def forward(self, sample: Tensor) -> Tensor:
        phase = self.frozen_phase if self.frozen_phase is not None else self.phase_map(sample.shape[-1] // 2)
        h = leaky(self.stem(sample) + phase)
        for block in self.blocks:
            h = block(h)
        return F.pixel_shuffle(self.out(h), 4) + F.interpolate(sample, scale_factor=2.0, mode="bilinear")


def loaded(kind: type[Generator] | type[Refiner], saved: dict) -> nn.Module:
    """The network of a checkpoint (`ema` and, if its sizes are not the usual ones, `config`), ready to draw."""
    net = kind(**saved.get("config", {}))
    net.load_state_dict(saved["ema"])
    return net.eval()


def to(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Casts only where it changes something, so that a float export holds no Cast nodes."""
    return x if x.dtype == dtype else x.to(dtype)


def to_grid(x: Tensor) -> Tensor:
    """[B, side*side, C] -> [B, C, side, side]"""
    side = math.isqrt(x.shape[1])
    return x.transpose(1, 2).reshape(-1, x.shape[2], side, side)


def to_tokens(x: Tensor) -> Tensor:
    """[B, C, side, side] -> [B, side*side, C]"""
    return x.reshape(-1, x.shape[1], x.shape[2] * x.shape[3]).transpose(1, 2)


def leaky(x: Tensor) -> Tensor:
    """A plain ReLU refiner died in training; this one does not."""
    return F.leaky_relu(x, 0.1)


def zero(layer: nn.Module) -> nn.Module:
    """A layer that starts as nothing."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


def modulation(width_cond: int, width: int, parts: str) -> nn.Module:
    """Condition -> scales (start at 1) and shifts (start at 0), in the order of `parts` ('s' and 'b')."""
    layer = zero(nn.Linear(width_cond, len(parts) * width))
    with torch.no_grad():
        for i, part in enumerate(parts):
            layer.bias[i * width:(i + 1) * width] = 1.0 if part == "s" else 0.0
    return layer
