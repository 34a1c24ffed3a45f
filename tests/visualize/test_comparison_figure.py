# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The figure: aligned, complete, inside its sheet, and every mask drawn alike."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from glas_wsol.errors import OutputError
from glas_wsol.visualize.comparison_figure import Column, Line, draw_figure

COLUMNS = [
    Column("All-ones", "", "untrained"),
    Column("Haematoxylin stain", "", "untrained"),
    Column("Min-max entropy, passes 4", "efficientnet_lite0", "image labels"),
    Column("U-Net", "resnet18", "pixel labels"),
]
CAPTION = ["Synthetic images, split test. " + "Inside a mask the image is kept. " * 5, "costs $5 or $6"]


def image(height: int = 48, width: int = 80, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).integers(60, 200, (height, width, 3), dtype=np.uint8)
    made[: height // 2, : width // 3] = (200, 40, 160)
    return made


def upper_left(picture: np.ndarray) -> np.ndarray:
    mask = np.zeros(picture.shape[:2], bool)
    mask[: mask.shape[0] // 2, : mask.shape[1] // 3] = True
    return mask


def line(picture: np.ndarray, truth: bool = True, columns: int = len(COLUMNS), name: str = "testA_1") -> Line:
    masks = tuple(np.roll(upper_left(picture), 7 * k, axis=1) for k in range(columns))
    return Line("malignant", name, picture, upper_left(picture) if truth else None, masks)


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Fewer dots, for speed."""
    monkeypatch.setattr("glas_wsol.visualize.comparison_figure._DOTS", 200)


@pytest.fixture
def drawn(monkeypatch) -> dict[str, list]:
    """The pictures in the order in which they are drawn, and the figure."""
    seen: dict[str, list] = {"pictures": [], "figure": []}
    imshow, init = Axes.imshow, Figure.__init__

    def keep(self, *args, **options):
        init(self, *args, **options)
        seen["figure"].append(self)

    monkeypatch.setattr(
        Axes, "imshow", lambda self, pixels, **kw: seen["pictures"].append(pixels) or imshow(self, pixels, **kw)
    )
    monkeypatch.setattr(Figure, "__init__", keep)
    return seen


def texts_of(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text().strip()]


def boxes(figure: Figure) -> np.ndarray:
    """Left, bottom, right, top of every picture and every text, px."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    artists = [*(picture for axis in figure.axes for picture in axis.images), *texts_of(figure)]
    return np.array([artist.get_window_extent(renderer).extents for artist in artists])


@pytest.mark.parametrize(("count", "name"), [(1, "testA_1"), (4, "x" * 60), (13, "Swainson_Warbler_0004_794874")])
def test_nothing_overlaps_and_nothing_leaves_the_sheet(tmp_path, drawn, count, name):
    columns = (COLUMNS * 4)[:count]
    lines = [line(image(), True, count, name), line(image(90, 40), True, count, name)]
    draw_figure(tmp_path / "f.png", lines, columns, CAPTION)
    (figure,) = drawn["figure"]
    width, height = figure.canvas.get_width_height()
    assert Image.open(tmp_path / "f.png").size == (width, height)
    found = boxes(figure)
    assert len(found) > 2 * (count + 2)
    assert found[:, :2].min() >= -1
    assert (found[:, 2] <= width + 1).all()
    assert (found[:, 3] <= height + 1).all()
    for i, one in enumerate(found):
        for other in found[i + 1 :]:
            across = min(one[2], other[2]) - max(one[0], other[0])
            along = min(one[3], other[3]) - max(one[1], other[1])
            assert min(across, along) <= 1.5, f"{one} and {other} overlap"


def test_comparison_figure_pictures_are_aligned_and_keep_shape(tmp_path, drawn):
    draw_figure(tmp_path / "f.png", [line(image()), line(image(60, 80))], COLUMNS, [])
    (figure,) = drawn["figure"]
    extents = boxes(figure)[: len(figure.axes)].reshape(2, 6, 4)
    np.testing.assert_allclose(extents[:, :, [1, 3]], np.repeat(extents[:, :1, [1, 3]], 6, axis=1), atol=0.5)
    middles = extents[..., 0] + extents[..., 2]
    np.testing.assert_allclose(middles[0], middles[1], atol=1)
    widths, heights = extents[..., 2] - extents[..., 0], extents[..., 3] - extents[..., 1]
    np.testing.assert_allclose(widths / heights, np.array([80 / 48, 80 / 60])[:, None].repeat(6, 1), rtol=0.03)


def test_truth_and_every_method_are_drawn_alike(tmp_path, drawn):
    picture = image()
    same = Line("benign", "a", picture, upper_left(picture), (upper_left(picture),) * 4)
    draw_figure(tmp_path / "f.png", [same], COLUMNS, [])
    plain, truth, *methods = drawn["pictures"]
    assert all(np.array_equal(method, truth) for method in methods)
    height, width = plain.shape[:2]
    inside = (slice(4, height // 2 - 4), slice(4, 26 * width // 80 - 4))
    assert np.array_equal(truth[inside], plain[inside])
    faded, kept = (p[height // 2 + 20 :].reshape(-1, 3).astype(int) for p in (truth, plain))
    assert np.ptp(faded, axis=1).mean() < 0.5 * np.ptp(kept, axis=1).mean()
    yellow = (truth == (255, 222, 0)).all(-1)
    rows, columns = np.nonzero(yellow)
    assert yellow.any()
    assert rows.max() < height // 2 + 20
    assert columns.max() < width // 3 + 20


def test_pictures_come_in_the_order_of_the_columns(tmp_path, drawn):
    draw_figure(tmp_path / "f.png", [line(image()), line(image(seed=1))], COLUMNS, [])
    pictures = drawn["pictures"]
    assert len(pictures) == 12
    lefts = []
    for panel in pictures[2:6]:
        yellow = (panel == (255, 222, 0)).all(-1)
        lefts.append(np.flatnonzero(yellow.any(0)).max() / panel.shape[1])
    expected = [(80 // 3 + 7 * k) / 80 for k in range(4)]
    assert lefts == pytest.approx(expected, abs=0.03)
    assert not np.array_equal(pictures[0], pictures[6])


def test_titles_groups_and_names_are_written(tmp_path, drawn):
    draw_figure(tmp_path / "f.png", [line(image())], COLUMNS, CAPTION)
    texts = " ".join(text.get_text().replace("\n", " ") for text in texts_of(drawn["figure"][0]))
    for said in (
        "image",
        "truth",
        "All-ones",
        "U-Net",
        "resnet18",
        "untrained",
        "pixel labels",
        "malignant",
        "$5 or $6",
    ):
        assert said in texts


def test_a_long_title_is_broken_at_its_comma_first(tmp_path, drawn):
    draw_figure(tmp_path / "f.png", [line(image(), columns=6)], [COLUMNS[2]] * 6, [])
    titles = [text.get_text() for text in texts_of(drawn["figure"][0])]
    assert titles.count("Min-max entropy,\npasses 4\nefficientnet_\nlite0\nimage labels") == 6


def test_comparison_figure_without_truth_has_no_such_column(tmp_path, drawn):
    draw_figure(tmp_path / "a.png", [line(image(), truth=False)], COLUMNS, [])
    assert len(drawn["pictures"]) == 5
    draw_figure(tmp_path / "b.png", [line(image(), truth=False), line(image())], COLUMNS, [])
    assert len(drawn["pictures"]) == 5 + 11
    texts = [[text.get_text() for text in texts_of(figure)] for figure in drawn["figure"]]
    assert "truth" not in texts[0]
    assert {"truth", "no mask"} < set(texts[1])


def test_a_pdf_holds_its_text_as_text_and_is_the_same_every_time(tmp_path):
    for name in ("a.pdf", "b.PDF"):
        draw_figure(tmp_path / name, [line(image())], COLUMNS, CAPTION)
    content = (tmp_path / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert b"DejaVuSans" in content
    assert content == (tmp_path / "b.PDF").read_bytes()


def test_a_users_own_style_changes_nothing(tmp_path):
    import matplotlib as mpl

    draw_figure(tmp_path / "a.png", [line(image())], COLUMNS, CAPTION)
    with mpl.rc_context({"font.family": "serif", "figure.facecolor": "black", "font.size": 30, "text.color": "red"}):
        draw_figure(tmp_path / "b.png", [line(image())], COLUMNS, CAPTION)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"PNG or a PDF.*f\.jpg"):
        draw_figure(tmp_path / "f.jpg", [line(image())], COLUMNS, [])
    with pytest.raises(OutputError, match="make the folder first"):
        draw_figure(tmp_path / "none" / "f.png", [line(image())], COLUMNS, [])
    with pytest.raises(ValueError, match="one bool mask for each column"):
        draw_figure(tmp_path / "f.png", [line(image(), columns=3)], COLUMNS, [])
    wrong = Line("a", "b", image(), None, (upper_left(image()).T,))
    with pytest.raises(ValueError, match="of the image's size"):
        draw_figure(tmp_path / "f.png", [wrong], COLUMNS[:1], [])
    assert list(tmp_path.iterdir()) == []
