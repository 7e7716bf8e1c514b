"""Contact sheets: the eyes of the training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

LABEL_HEIGHT = 14


def sheet(images: list[np.ndarray], labels: list[str], columns: int, path: Path, size: int = 128) -> None:
    """Writes a grid of uint8 images with a label under each; an image of another size is scaled to `size`."""
    rows = -(-len(images) // columns)
    canvas = Image.new("RGB", (columns * size, rows * (size + LABEL_HEIGHT)), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        x, y = i % columns * size, i // columns * (size + LABEL_HEIGHT)
        tile = Image.fromarray(image)
        canvas.paste(tile if tile.size == (size, size) else tile.resize((size, size), Image.BICUBIC), (x, y))
        draw.text((x + 2, y + size + 1), label[:size // 6 + 2], fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, quality=88)
