"""Icon packages -> 128 px RGBA renders, once: `renders.npy` [N, 128, 128, 4] uint8 and `renders.json` (code point, style, label)."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from .paths import EMOJIBASE, PACKAGES, RENDERS, RENDERS_INDEX, RENDERS_LARGE, WORK

SIZE = 128
GENERATOR_STYLES = ("3d", "flat", "cartoon", "minimal", "mono")
JUDGE_STYLES = ("glossy", "sticker", "bold", "blob")
SVG_SETS = {"fluent-emoji": "glossy", "fluent-emoji-flat": "flat", "noto": "cartoon", "twemoji": "minimal", "emojione": "sticker",
            "fxemoji": "bold", "noto-v1": "blob", "fluent-emoji-high-contrast": "mono"}
SKIPPED_GROUPS = (None, 2, 9)  # skin tones and flags
SYMBOLS = ("heart", "star", "circle", "square", "triangle", "diamond", "arrow", "warning", "no entry", "prohibited", "radioactive",
           "biohazard", "recycling", "check mark", "cross mark", "question", "exclamation", "peace", "yin yang", "infinity", "atom")


def stored() -> tuple[np.ndarray, dict[tuple[str, str], int]]:
    """The renders, mapped, and the number of each by code point and style."""
    index = json.loads(RENDERS_INDEX.read_text())
    return np.load(RENDERS, mmap_mode="r"), {(i["code"], i["style"]): n for n, i in enumerate(index)}


def code(hexcode: str) -> str:
    """Lower case without the variation selector: one spelling for all packages."""
    return "-".join(p for p in hexcode.lower().split("-") if p != "fe0f")


def slug(label: str) -> str:
    """Label -> the kebab-case name that icon sets use."""
    plain = unicodedata.normalize("NFKD", label.lower()).encode("ascii", "ignore").decode().replace("'", "")
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def concepts() -> dict[str, dict]:
    """Code point -> emojibase entry, without flags, clock hours, most symbols and the people's variants."""
    kept = {}
    for entry in json.loads(EMOJIBASE.read_text()):
        group, label = entry.get("group"), entry["label"].lower()
        words = re.findall(r"[a-z]+", label)
        if group in SKIPPED_GROUPS or (group == 5 and ("clock" in words or "thirty" in words)) and "alarm" not in words:
            continue
        if group == 1 and set(words) & {"man", "woman", "men", "women", "family", "couple", "kiss"}:
            continue
        if group == 8 and not any(s in label for s in SYMBOLS):
            continue
        kept[code(entry["hexcode"])] = entry
    return kept


def square(image: Image.Image, size: int = SIZE) -> np.ndarray | None:
    """RGBA, padded to a square and scaled to `size` pixels; None for an empty picture."""
    image = image.convert("RGBA")
    if image.size != (size, size):
        side = max(image.size)
        canvas = Image.new("RGBA", (side, side))
        canvas.paste(image, ((side - image.size[0]) // 2, (side - image.size[1]) // 2))
        image = canvas.resize((size, size), Image.LANCZOS)
    pixels = np.asarray(image)
    return pixels if pixels[..., 3].max() >= 10 else None


def svg_icons(name: str, size: int = SIZE) -> dict[str, str]:
    """Icon name -> SVG text of one iconify set, drawn at `size` pixels."""
    data = json.loads((PACKAGES / "@iconify-json" / name / "icons.json").read_text())
    icons = dict(data["icons"])
    for alias, spec in data.get("aliases", {}).items():
        if len(spec) == 1 and spec.get("parent") in data["icons"]:
            icons.setdefault(alias, data["icons"][spec["parent"]])
    colour = ' color="#111"' if name.endswith("contrast") else ""

    def svg(icon: dict) -> str:
        width, height = (icon.get(k, data.get(k, 16)) for k in ("width", "height"))
        return (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{icon.get("left", 0)} '
                f'{icon.get("top", 0)} {width} {height}" width="{size}" height="{size}"{colour}>{icon["body"]}</svg>')

    return {key: svg(icon) for key, icon in icons.items()}


def main() -> None:
    """Renders every set. About two minutes of one core."""
    images, index = render(SIZE, (*GENERATOR_STYLES, *JUDGE_STYLES))
    WORK.mkdir(parents=True, exist_ok=True)
    np.save(RENDERS, np.stack(images))
    RENDERS_INDEX.write_text(json.dumps(index))
    print(f"render: {len(images)} pictures of {len({i['code'] for i in index})} concepts", flush=True)


def large() -> None:
    """Every fourth icon of the generator's styles at 256 px, for the stage that enlarges: `renders256.npy` and labels beside it."""
    images, index = render(2 * SIZE, GENERATOR_STYLES, every=4)
    np.save(RENDERS_LARGE, np.stack(images))
    RENDERS_LARGE.with_suffix(".json").write_text(json.dumps(index))
    print(f"render: {len(images)} large pictures", flush=True)


def render(size: int, styles: tuple[str, ...], every: int = 1) -> tuple[list[np.ndarray], list[dict[str, str]]]:
    """Pictures [size, size, 4] and what they show; only every n-th icon of each set if asked."""
    known = concepts()
    by_slug = {slug(e["label"]): c for c, e in known.items()}
    by_tight_slug = {s.replace("-", ""): c for s, c in by_slug.items()}
    by_name: dict[str, str] = {}
    for name in ("fluent-emoji-flat", "noto", "twemoji"):
        for hexcode, icon in json.loads((PACKAGES / "@iconify-json" / name / "chars.json").read_text()).items():
            by_name.setdefault(icon, code(hexcode))
    images: list[np.ndarray] = []
    index: list[dict[str, str]] = []

    def add(image: Image.Image, hexcode: str, style: str) -> None:
        pixels = square(image, size)
        if pixels is not None:
            images.append(pixels)
            index.append({"code": hexcode, "style": style, "label": known[hexcode]["label"]})

    for path in sorted(Path(PACKAGES, "@lobehub", "fluent-emoji-3d", "assets").iterdir())[::every]:
        if code(path.stem) in known:
            add(Image.open(path), code(path.stem), "3d")
    print(f"render 3d: {len(images)}", flush=True)
    for name, style in SVG_SETS.items():
        if style not in styles:
            continue
        seen: set[str] = set()
        for icon, svg in sorted(svg_icons(name, size).items())[::every]:
            hexcode = by_name.get(icon) or by_slug.get(icon) or by_tight_slug.get(re.sub("^(black|white)-|-", "", icon))
            if hexcode not in known or hexcode in seen:
                continue
            try:
                png = bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True))
            except ValueError as error:
                print(f"render {name}/{icon}: {error}", flush=True)
                continue
            seen.add(hexcode)
            add(Image.open(io.BytesIO(png)), hexcode, style)
        print(f"render {style} ({name}): {len(seen)}", flush=True)
    return images, index
