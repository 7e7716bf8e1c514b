"""Training on a few idle cores: one process a core, no barrier between them.

Every worker trains its own copy and, every few steps, moves half-way to a shared copy and writes the result back (elastic
averaging). A worker that the machine starves slows nobody. With one worker a run is exactly repeatable.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

MERGE_EVERY = 8
LOG_EVERY = 40


@dataclass
class Plan:
    """One stage of training."""

    name: str
    checkpoint: Path
    stop_at: float  # seconds since the epoch
    batch: int = 32
    rate: float = 8e-4
    warm_up: int = 60
    decay: float = 0.25  # the last share of the time, in which the rate falls to 2%
    weight_decay: float = 0.02
    clip: float = 2.0
    ema: float = 0.997
    workers: int = 2
    save_every_s: float = 180.0
    seed: int = 0
    compiled: bool = False  # torch.compile: half as fast again on a CPU, after minutes of compiling (kept in a cache)


Step = Callable[[Callable[..., Tensor], int], tuple[Tensor, dict[str, float]]]
Setup = Callable[[int, int], Step]


def mixed_precision() -> torch.autocast:
    """bfloat16 products where the CPU multiplies them in tiles (AMX); elsewhere they take longer than f32 ones."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_amx_tile_supported())


def flat(net: nn.Module) -> Tensor:
    """All parameters as one vector."""
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def unflat(net: nn.Module, vector: Tensor) -> None:
    """The inverse of `flat`."""
    at = 0
    for p in net.parameters():
        p.data.copy_(vector[at:at + p.numel()].view_as(p))
        at += p.numel()


def write(path: Path, value: dict) -> None:
    """By rename, so that a killed run leaves the old checkpoint."""
    temporary = path.with_suffix(".tmp")
    torch.save(value, temporary)
    os.replace(temporary, path)


def run(plan: Plan, net: nn.Module, setup: Setup, on_save: Callable[[nn.Module, dict], None] | None = None) -> dict:
    """Trains `net` until `stop_at`, resuming from the checkpoint if there is one. Gives the final checkpoint.

    `setup(worker, steps_done)` gives the worker's step function: net, step -> loss and figures to log. The checkpoint holds `net`
    (shared weights), `ema`, `steps` and `images`, and each worker's optimiser lies beside it.
    """
    state, saved = {"steps": 0, "images": 0, "seconds": 0.0}, {}
    if plan.checkpoint.exists():
        saved = torch.load(plan.checkpoint, weights_only=True)
    if "net" in saved:  # restored ones have no more than their weights, which `net` holds then
        net.load_state_dict(saved["net"])
        state = {k: saved[k] for k in state}
        ema = saved["ema_flat"]
        print(f"{plan.name}: resume after {state['images']} images", flush=True)
    else:
        ema = flat(net)
    plan.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    shared, counts = flat(net).share_memory_(), torch.zeros(plan.workers, dtype=torch.long).share_memory_()
    arguments = (plan, net, setup, on_save, shared, ema.share_memory_(), counts, state, os.getpid())
    if plan.workers == 1:
        work(0, *arguments)
    else:
        mp.start_processes(work, arguments, plan.workers, start_method="fork")
    return torch.load(plan.checkpoint, weights_only=True)


def rate_at(plan: Plan, step: int, share: float) -> float:
    """Learning rate after `step` steps of this run, with `share` of its time gone."""
    return plan.rate * min(1.0, (step + 1) / plan.warm_up) * max(0.02, min(1.0, (1 - share) / plan.decay))


def work(worker: int, plan: Plan, net: nn.Module, setup: Setup, on_save: Callable[[nn.Module, dict], None] | None, shared: Tensor,
         ema: Tensor, counts: Tensor, state: dict, parent: int) -> None:
    """One worker; worker 0 also logs, averages and saves. Ends early if its parent is killed."""
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed + 1000 * worker + state["steps"])
    step_of = setup(worker, state["steps"])
    net.train()
    forward = torch.compile(net, dynamic=False) if plan.compiled else net
    wide = [p for p in net.parameters() if p.ndim >= 2]
    narrow = [p for p in net.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW([{"params": wide, "weight_decay": plan.weight_decay}, {"params": narrow, "weight_decay": 0.0}],
                                  lr=plan.rate, betas=(0.9, 0.98), fused=True)
    memory = plan.checkpoint.with_name(f"{plan.checkpoint.stem}.optimiser{worker}")
    if memory.exists() and state["steps"]:
        optimiser.load_state_dict(torch.load(memory, weights_only=True))
    began = saved_at = logged_at = time.time()
    total, figures, step, logged_images = max(1.0, plan.stop_at - began), [], 0, 0

    def progress() -> dict:
        done = int(counts.sum())
        return {"steps": state["steps"] + done, "images": state["images"] + done * plan.batch,
                "seconds": state["seconds"] + time.time() - began}

    def save() -> None:
        torch.save(optimiser.state_dict(), memory.with_suffix(f".tmp{worker}"))
        os.replace(memory.with_suffix(f".tmp{worker}"), memory)
        if worker == 0:
            mine = flat(net)
            unflat(net, ema)
            average = {k: v.clone() for k, v in net.state_dict().items()}
            if on_save:
                net.eval()
                on_save(net, progress())
                net.train()
            unflat(net, shared)
            write(plan.checkpoint, {"net": net.state_dict(), "ema": average, "ema_flat": ema.clone(),
                                    "config": getattr(net, "config", {}), **progress()})
            unflat(net, mine)

    while time.time() < plan.stop_at and (plan.workers == 1 or os.getppid() == parent):
        rate = rate_at(plan, step, (time.time() - began) / total)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss, numbers = step_of(forward, step)
        optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), plan.clip)
        optimiser.step()
        step += 1
        counts[worker] += 1
        figures.append({"loss": float(loss.detach()), "norm": float(norm), **numbers})
        if step % MERGE_EVERY == 0:
            merged = (flat(net) + shared) / 2 if plan.workers > 1 else flat(net)
            shared.copy_(merged)
            unflat(net, merged)
            if worker == 0:
                done = state["steps"] + int(counts.sum())
                ema.lerp_(merged, 1 - min(plan.ema, (1 + done) / (20 + done)) ** (MERGE_EVERY * plan.workers))
        if worker == 0 and step % LOG_EVERY == 0:
            now, images = time.time(), progress()["images"]
            mean = {k: sum(f[k] for f in figures if k in f) / max(1, sum(k in f for f in figures)) for k in figures[-1]}
            speed = (images - state["images"] - logged_images) / (now - logged_at)
            line = " ".join(f"{k} {v:.4f}" for k, v in mean.items())
            print(f"{plan.name}: {images} images, {line}, rate {rate:.5f}, {speed:.1f} img/s, {(plan.stop_at - now) / 60:.1f} min left", flush=True)
            logged_at, logged_images, figures = now, images - state["images"], []
        if time.time() - saved_at > plan.save_every_s:
            save()
            saved_at = time.time()
    save()
