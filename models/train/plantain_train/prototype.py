"""Reads the weights of the first prototype (48 concepts) into today's networks: a warm start and a first pack.

The prototype kept constant factors and "1 +" outside its layers, used linear layers where convolutions do the same, and
ordered pixels differently. All of that is folded into the weights, so the functions are equal.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from .net import Generator, Refiner

RENAMES = [
    (r"^tp\.0\.", "text_in."), (r"^tp\.2\.", "text_out."), (r"^te\.0\.", "time_in."), (r"^te\.2\.", "time_out."),
    (r"^pe\.", "pool."), (r"^inp\.", "latent_in."), (r"^pos0$", "position_outer"),
    (r"^pos1$", "position_inner"), (r"^r1\.", "enter."), (r"^t1\.", "enter_attention."), (r"^dn\.", "down."),
    (r"^mid\.", "middle."), (r"^r2\.", "join."), (r"^t2\.", "leave_attention."), (r"^r3\.", "leave."),
    (r"^on\.", "norm_out."), (r"^out\.", "latent_out."),
    (r"\.n\.", ".norm1."), (r"\.n([123])\.", r".norm\1."), (r"\.c([12])\.c\.", r".conv\1.conv."), (r"\.ada\.", ".modulate."),
    (r"\.sk\.", ".skip."), (r"\.sa\.", ".self_attention."), (r"\.ca\.", ".cross_attention."), (r"\.o\.", ".out."),
    (r"\.qn\.", ".q_norm."), (r"\.kn\.", ".k_norm."), (r"\.f1\.", ".ff_in."), (r"\.f2\.", ".ff_out."), (r"\.w$", ".weight"),
]


def rename(key: str) -> str:
    """One prototype key -> one of ours."""
    for pattern, name in RENAMES:
        key = re.sub(pattern, name, key)
    return key


def generator(path: Path) -> Generator:
    """The prototype's generator, from its safetensors file."""
    state = {rename(k): v.float() for k, v in load_file(path).items() if k != "null"}
    state["text_in.weight"] *= 2.0
    state["pool.weight"] *= 4.0
    for key in [k for k in state if ".modulate.bias" in k]:
        # ConvBlock: scale, shift, gate; TransformerBlock: scale, shift, scale, shift: every even part had "1 +" outside
        parts = 4 if "attention" in key or "middle" in key else 3
        width = state[key].numel() // parts
        for i in range(0, parts, 2):
            state[key][i * width:(i + 1) * width] += 1.0
    for block in ("enter", "join", "leave"):
        state[f"{block}.conv2.conv.weight"] *= 0.5
        state[f"{block}.conv2.conv.bias"] *= 0.5
    inner, outer = state["down.weight"].shape[0], state["down.weight"].shape[1] // 4
    state["down.weight"] = state["down.weight"].view(inner, 2, 2, outer).permute(0, 3, 1, 2).contiguous()
    channel_first = torch.arange(4 * outer).view(4, outer).t().reshape(-1)  # (y, x, channel) -> (channel, y, x)
    state["up.weight"], state["up.bias"] = state["up.weight"][channel_first], state["up.bias"][channel_first]
    net = Generator()
    net.load_state_dict(state)
    return net.eval()


def refiner(path: Path) -> Refiner:
    """The prototype's refiner, from its safetensors file."""
    old = {k: v.float() for k, v in load_file(path).items()}
    first: Tensor = old["i.weight"]  # [width, 12 pixels + 8 phase, 3, 3]; pixels are (channel, y, x) of a 2x2 block
    width = first.shape[0]
    pixels = first[:, :12].reshape(width, 3, 2, 2, 3, 3).permute(0, 1, 4, 2, 5, 3).reshape(width, 3, 6, 6)
    state = {"stem.weight": pixels.contiguous(), "stem.bias": old["i.bias"], "phase": old["pos"],
             "phase_in.weight": first[:, 12:].contiguous(), "out.weight": old["o.weight"], "out.bias": old["o.bias"]}
    for i in range(3):
        for ours, theirs in (("conv1", "a"), ("conv2", "b")):
            for kind in ("weight", "bias"):
                state[f"blocks.{i}.{ours}.{kind}"] = old[f"b.{i}.{theirs}.{kind}"]
    net = Refiner()
    net.load_state_dict(state)
    return net.eval()
