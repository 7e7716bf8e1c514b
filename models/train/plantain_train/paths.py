"""Where things lie. Everything that a run makes is under one work folder, which is not in git."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORK = Path(os.environ.get("PLANTAIN_TRAIN_WORK", HERE.parent / "work"))
PACKAGES = Path(os.environ.get("PLANTAIN_TRAIN_PACKAGES", HERE.parent)) / "node_modules"

RENDERS, RENDERS_INDEX = WORK / "renders.npy", WORK / "renders.json"
RENDERS_LARGE = WORK / "renders256.npy"
BASIS = WORK / "basis.npz"
POOL = WORK / "pool"
TRANSLATED = WORK / "translated.npz"
SHEETS = WORK / "sheets"
CONCEPTS = HERE / "concepts.txt"
EMOJIBASE = PACKAGES / "emojibase-data" / "en" / "data.json"
