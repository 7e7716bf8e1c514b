"""`python -m plantain_train STAGE [options]`: see README.md for the stages and their order."""

from __future__ import annotations

import argparse
import datetime
import time
from pathlib import Path


def stop_time(text: str) -> float:
    """ "15:25" (UTC, today or tomorrow) or "90m" -> seconds since the epoch."""
    if text.endswith("m"):
        return time.time() + 60 * float(text[:-1])
    now = datetime.datetime.now(datetime.UTC)
    hour, minute = map(int, text.split(":"))
    then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (then if then > now else then + datetime.timedelta(days=1)).timestamp()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="plantain_train", description=__doc__)
    stages = top.add_subparsers(dest="stage", required=True)
    stages.add_parser("render", help="icon packages -> 128 px pictures")
    basis = stages.add_parser("basis", help="fit the latent's basis, or adopt one (a warm start needs the one it was trained with)")
    basis.add_argument("--adopt", type=Path, help="an npz with mu, V and w")
    pool = stages.add_parser("pool", help="recipes, captions and text states for the first N concepts")
    pool.add_argument("--concepts", type=int, default=256)
    pool.add_argument("--pairs", type=int, default=24000)
    teacher = stages.add_parser("teacher", help="train the generator")
    teacher.add_argument("--rate", type=float, default=1e-3)
    teacher.add_argument("--start-share", type=float, default=0.75, help="share of samples at t = 0: picture from pure noise")
    teacher.add_argument("--name", default="teacher", help="of the checkpoint in the work folder")
    teacher.add_argument("--hidden-share", type=float, default=0.1, help="share of samples without their text, for guidance")
    teacher.add_argument("--decay", type=float, default=0.25, help="the last share of the time, in which the rate falls")
    grow = stages.add_parser("grow", help="more inner blocks, which change nothing yet; the optimiser's state goes along")
    grow.add_argument("checkpoint", type=Path)
    grow.add_argument("out", type=Path)
    grow.add_argument("--depth", type=int, default=6)
    distil = stages.add_parser("distil", help="teacher's trajectories, then a one-step student")
    distil.add_argument("--teacher", type=Path)
    distil.add_argument("--trajectories", type=int, default=2400)
    refine = stages.add_parser("refine", help="train the refiner, 64 -> 128 px")
    translate = stages.add_parser("translate", help="draw the pairs that no picture exists of from the word's other styles")
    for stage in (teacher, translate, distil, refine):
        stage.add_argument("--start", type=Path, help="first weights: a .pt of ours or, of the generator, the prototype's .safetensors")
    enlarge = stages.add_parser("enlarge", help="train the stage from 128 to 256 px, behind the refiner")
    shallow = stages.add_parser("shallow", help="a text encoder of fewer layers; encode the pool again with it, and tune the generator")
    shallow.add_argument("--layers", type=int, default=3)
    for stage in (teacher, distil, refine, enlarge, translate, shallow):
        stage.add_argument("--stop", type=stop_time, required=True, help="HH:MM in UTC, or minutes as in 90m")
        stage.add_argument("--batch", type=int, default=32 if stage in (distil, refine, enlarge) else 64)
        stage.add_argument("--workers", type=int, default=2)
    for stage in (teacher, distil, refine, enlarge, translate):
        stage.add_argument("--compiled", action="store_true", help="use torch.compile (needs a C++ compiler)")
    stages.add_parser("judge", help="fit the judge on real icons in styles that the generator never sees")
    prune = stages.add_parser("prune", help="a smaller generator; tune it with `teacher --start pruned.pt`")
    prune.add_argument("checkpoint", type=Path)
    prune.add_argument("out", type=Path)
    prune.add_argument("--share", type=float, default=0.5, help="share of the feed-forward channels that stays")
    prune.add_argument("--drop", type=int, default=1, help="how many inner blocks to remove")
    narrow = stages.add_parser("narrow", help="a narrower refiner; tune it with `refine --start narrow.pt`")
    narrow.add_argument("out", type=Path)
    narrow.add_argument("--width", type=int, default=48)
    evaluate = stages.add_parser("evaluate", help="judge a checkpoint (.pt) or, drawn by plantain, a pack (.safetensors); write sheets")
    evaluate.add_argument("checkpoint", type=Path)
    evaluate.add_argument("--binary", type=Path, default=Path("plantain"), help="the plantain that draws a pack's pictures")
    evaluate.add_argument("--steps", type=int, default=1)
    evaluate.add_argument("--guidance", type=float, default=1.0)
    evaluate.add_argument("--count", type=int, default=320)
    evaluate.add_argument("--among", default="all", help="which words are asked for: all, prototype, or `first N`")
    show = stages.add_parser("show", help="contact sheets of a pack, drawn by plantain: the 50 prompts, and words in every style")
    show.add_argument("pack", type=Path)
    show.add_argument("out", type=Path)
    show.add_argument("--binary", type=Path, default=Path("plantain"))
    show.add_argument("--large", action="store_true", help="also pictures at 256x256, for a pack with an enlarger")
    ship = stages.add_parser("export", help="checkpoint -> ONNX folder for plantain-pack")
    ship.add_argument("checkpoint", type=Path)
    ship.add_argument("out", type=Path)
    ship.add_argument("--name", default="plantain-icons")
    ship.add_argument("--steps", type=int, default=1)
    ship.add_argument("--guidance", type=float, default=1.0)
    keep = stages.add_parser("keep", help="checkpoint, basis and refiner -> one f16 file for git")
    keep.add_argument("checkpoint", type=Path)
    keep.add_argument("out", type=Path)
    keep.add_argument("--note", default="")
    restore = stages.add_parser("restore", help="the inverse of keep")
    restore.add_argument("source", type=Path)
    everything = stages.add_parser("all", help="every stage in order, each for its share of the time; resumes")
    everything.add_argument("--minutes", type=float, default=240)
    everything.add_argument("--concepts", type=int, default=256)
    everything.add_argument("--out", type=Path, default=Path("model-onnx"))
    everything.add_argument("--workers", type=int, default=2)
    return top


def main() -> None:
    """Runs one stage."""
    o = parser().parse_args()
    if "stop" in o:
        import torch

        torch.set_num_threads(1)  # workers are forked: no thread pool may exist before
    if o.stage == "render":
        from . import render

        render.main()
    elif o.stage == "basis":
        from . import basis

        basis.adopt(o.adopt) if o.adopt else basis.fit()
    elif o.stage == "pool":
        from .pool import build

        build(o.concepts, o.pairs)
    elif o.stage == "teacher":
        from . import teacher

        teacher.train(o.name, o.stop, o.start, o.rate, o.batch, o.workers, o.start_share, o.hidden_share, o.decay, o.compiled)
    elif o.stage == "distil":
        from . import distil, teacher

        source = o.teacher or teacher.CHECKPOINT
        distil.draw(source, time.time() + 0.5 * (o.stop - time.time()), o.trajectories)
        distil.train(source, o.start, o.stop, o.batch, o.workers, o.compiled)
    elif o.stage == "refine":
        from . import refine

        refine.train(o.stop, o.start, o.batch, o.workers, o.compiled)
    elif o.stage == "enlarge":
        from . import enlarge

        enlarge.train(o.stop, o.batch, o.workers, o.compiled)
    elif o.stage == "translate":
        from . import translate

        translate.train(o.stop, o.start, o.batch, o.workers, o.compiled)
    elif o.stage == "shallow":
        from . import shallow

        shallow.train(o.layers, o.stop, o.batch, o.workers)
    elif o.stage == "grow":
        from .grow import grow

        grow(o.checkpoint, o.out, o.depth)
    elif o.stage == "prune":
        from .prune import prune

        prune(o.checkpoint, o.out, o.share, o.drop)
    elif o.stage == "narrow":
        from .prune import narrow

        narrow(o.out, o.width)
    elif o.stage == "judge":
        from . import judge

        judge.fit()
    elif o.stage == "evaluate":
        from .evaluate import Checkpoint, Plantain, evaluate

        packed = o.checkpoint.suffix == ".safetensors"
        evaluate(Plantain(o.checkpoint, o.binary) if packed else Checkpoint(o.checkpoint, o.steps, o.guidance), o.count, o.among)
    elif o.stage == "show":
        from .show import show

        show(o.pack, o.out, o.binary, o.large)
    elif o.stage == "export":
        from .ship import ship

        ship(o.checkpoint, o.out, o.name, o.steps, o.guidance)
    elif o.stage == "keep":
        from .store import keep

        keep(o.checkpoint, o.out, o.note)
    elif o.stage == "restore":
        from .store import restore

        restore(o.source)
    elif o.stage == "all":
        from .all import run

        run(o.minutes, o.concepts, o.out, o.workers)


if __name__ == "__main__":
    main()
