"""`python -m plantain_train.export_prototype PROTOTYPE_DIR EMOJIBASE_JSON OUT`: the 48-concept prototype as a clean ONNX folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from . import prototype, text
from .export import Card, export
from .latent import PatchBasis

STYLES = {"3d": "3d render", "flat": "flat", "cartoon": "cartoon", "mono": "black and white"}
PROVENANCE = (
    "Trained from random weights on renders of open icon sets: fluent-emoji (3d, flat, high contrast; MIT, Microsoft), noto-emoji "
    "(Apache-2.0, Google); names from emojibase (MIT). Text encoder: all-MiniLM-L6-v2 (Apache-2.0), vocabulary cut. 48 concepts, 4 "
    "styles; a one-step student of a teacher with guidance 2. Draws icons, not photographs.")


def emojibase_phrases(path: Path) -> list[str]:
    """Every name and tag, to decide which word pieces to keep."""
    return [p for e in json.loads(path.read_text()) for p in (e["label"], *e.get("tags", []))]


def main() -> None:
    """Command line."""
    source, emojibase, out = map(Path, sys.argv[1:4])
    pilot = json.loads((source / "pilot.json").read_text())
    card = Card(name="plantain-icons-48", words=pilot["names"], styles=STYLES, default_style="3d render", licence="MIT OR Apache-2.0 (weights); see provenance",
                provenance=PROVENANCE)
    extra = [*STYLES.values(), *pilot["names"]]
    keep = text.pruned_vocabulary(text.model_folder(), [*emojibase_phrases(emojibase), *extra])
    export(out, prototype.generator(source / "weights" / "student.safetensors"), prototype.refiner(source / "weights" / "ref.safetensors"),
           PatchBasis.load(source / "pca.npz"), keep, card)
    print((out / "OPS.txt").read_text())


if __name__ == "__main__":
    main()
