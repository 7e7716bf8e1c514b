"""Every stage in order, each in its own process (so that threads and memory start clean). Finished stages are skipped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .judge import JUDGE
from .paths import BASIS, POOL, RENDERS, WORK

SHARES = {"translate": 0.06, "shallow": 0.06, "refine": 0.04, "narrow": 0.04, "enlarge": 0.06, "teacher": 0.60, "distil": 0.14}
NARROW = WORK / "narrow.pt"


def stage(*arguments: object) -> None:
    """Runs one stage; an error ends the whole."""
    print("==", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "plantain_train", *map(str, arguments)], check=True)


def run(minutes: float, concepts: int, out: Path, workers: int) -> None:
    """Data, translations, refiner, teacher, student, evaluation, export. A second call goes on where the first one stopped."""
    if not RENDERS.exists():
        stage("render")
    if not BASIS.exists():
        stage("basis")
    if not JUDGE.exists():
        stage("judge")
    for name, share in SHARES.items():
        if name == "shallow" and not (POOL / "starts.npy").exists():
            stage("pool", "--concepts", concepts)  # with the translated pictures
        timed = ("--stop", f"{minutes * share:.2f}m", "--workers", workers)
        if name != "narrow":
            stage(name, *timed)
        elif not NARROW.exists():
            stage("narrow", NARROW)
            stage("refine", "--start", NARROW, *timed)
    stage("evaluate", WORK / "teacher.pt", "--steps", 6, "--guidance", 2)
    stage("evaluate", WORK / "student.pt")
    stage("export", WORK / "student.pt", out)
