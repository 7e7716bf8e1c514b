"""A deeper generator that draws exactly what the old one did: new inner blocks end in zeros. Training goes on without a cold start."""

from __future__ import annotations

from pathlib import Path

import torch

from .loop import flat, write
from .net import Generator


def grow(source: Path, out: Path, depth: int) -> None:
    """A checkpoint with `depth` inner blocks; the optimiser states beside it are carried over, by the parameters' names."""
    saved = torch.load(source, weights_only=True)
    config = saved["config"]
    torch.manual_seed(depth)
    old = Generator(**config)
    added = depth - config["depth"]
    ff = [*config["ff"][:-1], *[4 * config["inner"]] * added, config["ff"][-1]]
    new = Generator(**{**config, "depth": depth, "ff": ff})
    fresh = {k: v for k, v in new.state_dict().items() if k not in saved["ema"]}
    new.load_state_dict({**fresh, **saved["ema"]})
    ema = flat(new)
    net = {**fresh, **saved.get("net", saved["ema"])}  # a restored checkpoint has the average only, and no steps
    write(out, {"steps": 0, "seconds": 0.0, **saved, "net": net, "ema": new.state_dict(), "ema_flat": ema, "config": new.config})
    for path in sorted(source.parent.glob(f"{source.stem}.optimiser*")):
        memory = torch.load(path, weights_only=True)
        groups = [[n for n, p in net.named_parameters() if wide == (p.ndim >= 2)] for net in (old, new) for wide in (True, False)]
        before, after = groups[0] + groups[1], groups[2] + groups[3]
        kept = {name: memory["state"][i] for i, name in enumerate(before) if i in memory["state"]}
        state = {i: kept[name] for i, name in enumerate(after) if name in kept}
        sizes = [len(groups[2]), len(groups[3])]
        for group, first, size in zip(memory["param_groups"], (0, sizes[0]), sizes, strict=True):
            group["params"] = list(range(first, first + size))
        torch.save({"state": state, "param_groups": memory["param_groups"]}, out.with_name(f"{out.stem}{path.suffix}"))
    print(f"grow: {sum(p.numel() for p in new.parameters()) / 1e6:.2f}M parameters, {len(fresh)} new tensors", flush=True)
