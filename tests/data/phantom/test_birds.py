# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from glas_wsol.data.cub import CUB5_CLASSES, cub_datalist
from glas_wsol.data.phantom.bird_drawing import SPECIES, draw_bird
from glas_wsol.data.phantom.birds import write_bird_phantom
from glas_wsol.errors import ConfigError, OutputError


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    return write_bird_phantom(tmp_path_factory.mktemp("cub") / "CUB_200_2011", size=(54, 72), workers=1)


def test_the_species_are_those_of_cub5():
    assert tuple(SPECIES) == CUB5_CLASSES


def test_default_counts_give_the_paper_fold(birds):
    datalist = cub_datalist(birds)
    assert {name: len(split) for name, split in datalist.splits.items()} == {"train": 120, "valid": 30, "test": 50}
    for split, each in (("train", 24), ("valid", 6), ("test", 10)):
        labels = [item.label for item in datalist.splits[split]]
        assert [labels.count(label) for label in range(5)] == [each] * 5
    assert all(item.mask is not None for split in datalist.splits.values() for item in split)
    assert (birds / "images/108.White_necked_Raven/White_Necked_Raven_0027_797355.jpg").exists()
    assert (birds / "images/019.Gray_Catbird/Gray_Catbird_0118_20476.jpg").exists()


def test_boxes_votes_and_sizes(birds):
    boxes = [line.split() for line in (birds / "bounding_boxes.txt").read_text().splitlines()]
    files = dict(line.split() for line in (birds / "images.txt").read_text().splitlines())
    sizes = set()
    for number, *edges in boxes:
        with Image.open(birds / "images" / files[number]) as image:
            sizes.add(image.size)
        votes = np.asarray(Image.open(birds / "segmentations" / files[number].replace(".jpg", ".png")))
        assert votes.shape == image.size[::-1]
        assert set(np.unique(votes)) <= {0, 51, 102, 153, 204, 255}
        left, top, width, height = (int(float(edge)) for edge in edges)
        inside = np.zeros(votes.shape, bool)
        inside[top : top + height, left : left + width] = True
        silhouette = votes > 127
        assert not silhouette[~inside].any()
        for side in (
            silhouette[top],
            silhouette[top + height - 1],
            silhouette[:, left],
            silhouette[:, left + width - 1],
        ):
            assert side.any()
        assert 0.03 < silhouette.mean() < 0.6
        assert ((votes > 0) & (votes < 255)).any(), "annotators disagree about the outline"
    assert len(sizes) > 50
    assert {width > height for width, height in sizes} == {True, False}, "some pictures are upright"


@pytest.mark.parametrize("name", SPECIES)
def test_a_bird_is_mostly_one_piece_and_repeats(name):
    for seed in range(3):
        image, votes = draw_bird(np.random.default_rng(seed), SPECIES[name], (90, 120))
        again, _ = draw_bird(np.random.default_rng(seed), SPECIES[name], (90, 120))
        assert image.shape == (90, 120, 3)
        assert np.array_equal(image, again)
        pieces, _ = ndimage.label(votes > 127, structure=np.ones((3, 3)))
        area = np.bincount(pieces.ravel())[1:]
        assert area.max() > 0.95 * area.sum()


def test_species_differ_on_the_bird_and_not_around_it():
    def mean_colours(where):
        return np.array(
            [
                [np.mean(image[where(votes)], axis=0) for image, votes in drawn]
                for drawn in (
                    [draw_bird(np.random.default_rng([k, s]), species, (60, 80)) for s in range(12)]
                    for k, species in enumerate(SPECIES.values())
                )
            ]
        )

    def separation(colours):  # between species over within species
        return colours.mean(axis=1).var(axis=0).sum() / colours.var(axis=1).mean(axis=0).sum()

    assert separation(mean_colours(lambda votes: votes > 127)) > 1.0
    assert separation(mean_colours(lambda votes: votes == 0)) < 0.3


def test_small_requests_reuse_and_refusal(tmp_path):
    folder = write_bird_phantom(tmp_path / "birds", train=11, test=5, size=(48, 64), workers=1)
    twin = write_bird_phantom(tmp_path / "twin", train=11, test=5, size=(48, 64))
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.*") if path.is_file())
    assert len(files) == 5 + 1 + 2 * 16
    assert all((folder / file).read_bytes() == (twin / file).read_bytes() for file in files)
    assert write_bird_phantom(folder, train=11, test=5, size=(48, 64)) == folder
    with pytest.raises(OutputError, match="train"):
        write_bird_phantom(folder, train=12, test=5, size=(48, 64))


@pytest.mark.parametrize("arguments", [{"train": 0}, {"test": -1}, {"seed": -1}, {"size": (20, 90)}])
def test_impossible_requests_are_refused(tmp_path, arguments):
    with pytest.raises(ConfigError):
        write_bird_phantom(tmp_path / "birds", **arguments)
