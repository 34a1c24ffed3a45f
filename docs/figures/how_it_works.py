# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""How the method works, drawn from a trained run: what each part was shown, what it found, and what C says of it.

    make demo
    python docs/figures/how_it_works.py demo [--image FILE] [--output docs/figures/how_it_works.png]

The run is the output folder of a training with ``train.json``, of both stages. The image is the first of the test
split, or a file; its sides are cut to multiples of 32. The steps of the erasing are those that a training with
``passes`` 4 would take on it. Nothing is drawn that the networks did not compute.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from torch import Tensor

import glas_wsol
from glas_wsol.data import load_datalist
from glas_wsol.engines import erasing
from glas_wsol.errors import ConfigError, GlasWsolError
from glas_wsol.networks.maps import activation_map, resize
from glas_wsol.transforms import read_rgb
from glas_wsol.writers.drawing import draw_mask, write_png

PASSES = 4
_LOSSES = """Low entropy on what was kept, high entropy on the rest:
both are losses, beside M's own. Wiping out is the paper's way
(passes 4); the recommended recipe keeps what was found first."""
_TEACHERS = """Its teachers saw no outline:
what the features have in
common, turned round by the
labels, and the stain. C has
not learnt on such masks."""
_SHOWN = 3  # steps of the erasing that have room
_INK, _GREY, _HUES = "#1c1c24", "#5c5c68", ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")


@dataclass(frozen=True)
class Step:
    """One forward of M: ``seen`` ``[H, W, 3]``, ``region`` ``[H, W]`` in [0, 1], M's probabilities, the trust."""

    seen: np.ndarray
    region: np.ndarray
    said: tuple[float, ...]
    trust: float


@dataclass(frozen=True)
class Shown:
    """An image that C is shown, ``[H, W, 3]`` in [0, 1], and its probability of each class."""

    seen: np.ndarray
    said: tuple[float, ...]


@dataclass(frozen=True)
class Story:
    """All that the figure shows of an image; arrays ``[H, W]`` in [0, 1] or ``[H, W, 3]``."""

    image: np.ndarray
    classes: tuple[str, ...]
    label: int
    evidence: np.ndarray
    steps: tuple[Step, ...]
    kept: np.ndarray
    parts: tuple[Shown, Shown]
    decoded: np.ndarray
    mask: np.ndarray
    second: tuple[Shown, Shown]


@torch.no_grad()
def tell(run: str | Path, image: np.ndarray, label: int) -> Story:
    """What both stages of a run make of an image.

    Args:
        run: output folder of a training with ``train.json``.
        image: ``[H, W, 3]`` uint8; its sides are cut to multiples of 32.
        label: its class.
    """
    loaded = [glas_wsol.load(Path(run, part, "model.pt"), device="cpu") for part in ("stage_one", "models")]
    first, second = (one.network for one in loaded)
    height, width = (32 * (side // 32) for side in image.shape[:2])
    image = np.ascontiguousarray(image[:height, :width])
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    x, target = first.normalise(pixels), torch.tensor([label])

    def seen(values: Tensor) -> np.ndarray:
        return (values * first.pixel_std + first.pixel_mean)[0].clamp(0, 1).permute(1, 2, 0).numpy()

    def shown(values: Tensor) -> Shown:
        return Shown(seen(values), tuple(first.probabilities(first.classify(values))[0].tolist()))

    maps, logits = first.class_maps(x), first.localize(x).logits
    evidence = resize(activation_map(maps, logits.softmax(dim=1)), height, width)[0, 0]
    steps, state = [], erasing.start(x)
    while state.step < PASSES and bool(state.alive.all()):
        localized = first.localize(state.erased)
        losses = torch.nn.functional.cross_entropy(localized.logits, target, reduction="none")
        start = losses if state.first_loss is None else state.first_loss
        trust = erasing.trust(state.step, localized.logits, losses, start, target, state.alive)
        said = tuple(localized.logits.softmax(dim=1)[0].tolist())  # as in training, where no temperature is known
        steps.append(Step(seen(state.erased), localized.mask[0, 0].numpy(), said, float(trust)))
        state = erasing.advance(state, localized.logits, losses, localized.mask, target)
    kept = erasing.keep(state).mask
    decoded = torch.sigmoid(second.mask_logits(second.normalise(pixels)))
    return Story(
        image,
        loaded[0].classes,
        label,
        ((evidence - evidence.min()) / (evidence.max() - evidence.min())).numpy(),
        tuple(steps),
        kept[0, 0].numpy(),
        (shown(x * kept), shown(x * (1 - kept))),
        decoded[0, 0].numpy(),
        loaded[1](image).mask,
        (shown(x * decoded), shown(x * (1 - decoded))),
    )


def draw(story: Story, output: str | Path) -> None:
    """Draw it.

    Args:
        story: of one image.
        output: PNG to write.
    """
    figure = Figure(figsize=(11.4, 7.0), dpi=130, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    page = _Page(figure, story)
    page.heading(
        0, "1  The localizer M finds a region. In training, what it found may be wiped out, and it looks again"
    )
    page.picture(0, 0, story.image, "the tile X", f"label: {story.classes[story.label]}; no outline")
    page.picture(0, 1, story.evidence, "M's map", "dark 0, bright 1")
    for column, step in enumerate(story.steps[:_SHOWN], start=2):
        title = "R0: found first" if column == 2 else f"R{column - 2}: found in what is left"
        trusted = f"trust {step.trust:.2f}" if step.trust > 0 else "trust 0: end"
        said = f"M: {story.classes[int(np.argmax(step.said))]} {100 * max(step.said):.0f} %, {trusted}"
        page.picture(0, column, _outlined(step.seen, step.region), title, said)
    page.heading(1, "2  The classifier C must name the class from what was kept, and must not be able to from the rest")
    page.picture(1, 0, story.kept, "R+: what was kept", "by trust, of all steps")
    page.asked(1, 1, story.parts[0], "X R+", "C, on the decidable region")
    page.asked(1, 2, story.parts[1], "X (1 - R+)", "C, on the undecidable region")
    page.note(1, 3, _LOSSES)
    page.heading(2, "3  The second stage, a decoder on the same trunk, draws a finer mask: this is the result")
    page.picture(2, 0, story.decoded, "the decoder's R+", "one value for 4 px")
    page.picture(2, 1, _outlined(story.image / 255, story.mask), "the mask", "R+ at least 0.5, cleaned; not tuned")
    page.asked(2, 2, story.second[0], "X R+", "C, not trained on this mask")
    page.asked(2, 3, story.second[1], "X (1 - R+)", "C, not trained on this mask")
    page.note(
        2,
        4,
        _TEACHERS,
    )
    canvas.draw()
    write_png(output, np.asarray(canvas.buffer_rgba())[..., :3].copy())


class _Page:
    """Places of three rows of pictures, in parts of the sheet."""

    left, gap, wide = 0.012, 0.0225, 0.1772
    tops = (0.945, 0.645, 0.305)  # of the rows' pictures

    def __init__(self, figure: Figure, story: Story) -> None:
        self.figure, self.story = figure, story
        inches = figure.get_size_inches()
        self.high = self.wide * inches[0] / inches[1] * story.image.shape[0] / story.image.shape[1]

    def corner(self, row: int, column: int) -> tuple[float, float]:
        return self.left + column * (self.wide + self.gap), self.tops[row] - self.high

    def heading(self, row: int, text: str) -> None:
        self.figure.text(self.left, self.tops[row] + 0.025, text, fontsize=11, weight="bold", color=_INK, va="center")

    def picture(self, row: int, column: int, values: np.ndarray, title: str, note: str) -> Axes:
        x, y = self.corner(row, column)
        axes = self.figure.add_axes((x, y, self.wide, self.high))
        axes.imshow(values, cmap="viridis", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        axes.axis("off")
        self.figure.text(x, y - 0.014, title, fontsize=9, color=_INK, va="center")
        self.figure.text(x, y - 0.034, note, fontsize=8, color=_GREY, va="center")
        if column:
            ends = [(x - self.gap + 0.003, y + self.high / 2), (x - 0.003, y + self.high / 2)]
            self.figure.add_artist(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=9, color=_GREY, lw=1))
        return axes

    def asked(self, row: int, column: int, part: Shown, title: str, note: str) -> None:
        self.picture(row, column, part.seen, title, note)
        x, y = self.corner(row, column)
        for line, (name, share) in enumerate(zip(self.story.classes, part.said, strict=True)):
            top = y - 0.058 - 0.019 * line
            self.figure.text(x, top, name, fontsize=8, color=_INK, va="center")
            for length, hue in ((1.0, "#e4e4ea"), (share, _HUES[line % len(_HUES)])):
                size = (0.38 * self.wide * length, 0.010)
                self.figure.add_artist(Rectangle((x + 0.36 * self.wide, top - 0.005), *size, color=hue, lw=0))
            self.figure.text(
                x + self.wide, top, f"{100 * share:.0f} %", fontsize=8, color=_INK, va="center", ha="right"
            )

    def note(self, row: int, column: int, text: str) -> None:
        x, y = self.corner(row, column)
        self.figure.text(x, y + self.high / 2, text, fontsize=9, color=_GREY, va="center", linespacing=1.6)


def _outlined(seen: np.ndarray, region: np.ndarray) -> np.ndarray:
    """A tile with the border of a region; what lies outside fades a little."""
    pixels = (255 * seen).round().astype(np.uint8)
    return draw_mask(pixels, region.astype(np.float32), region >= 0.5, line=2)


def main(words: Sequence[str] | None = None) -> int:
    """Draw it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="output folder of a training with train.json")
    parser.add_argument("--image", metavar="FILE", help="an image of the run's test split (default: the first)")
    parser.add_argument("--output", metavar="FILE", default=str(Path(__file__).with_suffix(".png")))
    given = parser.parse_args(words)
    try:
        items = load_datalist(Path(given.run, "phantom"), fold="stratified-0").select("test")
        name = Path(items[0]["image"] if given.image is None else given.image).name
        item = next((item for item in items if Path(item["image"]).name == name), None)
        if item is None:
            raise ConfigError(f"no test image is called {name}", given.run, f"name one such as {items[0]['image']}")
        draw(tell(given.run, read_rgb(item["image"]), item["label"]), given.output)
    except GlasWsolError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{item['name']} in {given.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
