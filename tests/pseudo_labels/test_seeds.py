# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Seeds and the loss on them, against values by hand and against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from glas_wsol.errors import ConfigError
from glas_wsol.pseudo_labels.seeds import IGNORE, PartialCrossEntropy, SeedBatch, agreement, pick_seeds, ranks


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_ranks_are_the_share_of_pixels_below():
    one = drawn(0, 60, 84)
    (found,) = ranks([one], "image")
    order = one.ravel().argsort().argsort().reshape(one.shape) / one.size
    assert found.dtype == np.float32
    # The table is made of every fourth pixel each way, 315 of 5040.
    np.testing.assert_allclose(found, order, atol=0.06)
    assert ((found[:-1] < found[1:]) == (one[:-1] < one[1:]))[found[:-1] != found[1:]].all(), "in the same order"
    few = one[::4, ::4]
    np.testing.assert_allclose(
        ranks([few.repeat(4, 0).repeat(4, 1)], "image")[0][::4, ::4],
        few.ravel().argsort().argsort().reshape(few.shape) / (few.size - 1),
        atol=0.0011,  # one step of the table
    )


def test_ranks_in_the_set_the_image_and_both():
    low, high = np.arange(16.0).repeat(4).repeat(4).reshape(16, 16).T, 100 + np.arange(64.0).reshape(8, 8)
    of_set, of_image, both = (ranks([low, high], scope) for scope in ("dataset", "image", "both"))
    assert float(of_set[0].max()) < float(of_set[1].min()), "every pixel of the second is above every one of the first"
    for one in of_image:
        assert (float(one.min()), float(one.max())) == pytest.approx((0, 1), abs=0.2)
    for s, i, b in zip(of_set, of_image, both, strict=True):
        np.testing.assert_allclose(b, (s + i) / 2, atol=1e-6)


def test_ranks_by_source_are_those_of_each_source_alone():
    pale, dark = [drawn(6, 60, 84), drawn(7, 44, 52) + 0.3], [drawn(8, 72, 40) * 2 + 50, drawn(9, 56, 96) * 2 + 51]
    found = ranks([pale[0], dark[0], pale[1], dark[1]], "source", ["A", "B", "A", "B"])
    for source, ours in ((pale, found[::2]), (dark, found[1::2])):
        pixels = np.sort(np.concatenate([one.ravel() for one in source]))
        for one, mine in zip(source, ours, strict=True):
            np.testing.assert_allclose(mine, np.searchsorted(pixels, one) / len(pixels), atol=0.05)
    assert float(ranks([pale[0], dark[0]], "dataset")[0].max()) <= 0.7, "over both, the pale one holds the low ranks"


def test_ranks_by_source_without_sources_are_over_the_set():
    maps = [drawn(6, 60, 84), drawn(8, 72, 40) + 3]
    wanted = ranks(maps, "dataset")
    for sources in (None, [None, None]):
        assert all(np.array_equal(a, b) for a, b in zip(ranks(maps, "source", sources), wanted, strict=True))


def test_seeds_by_source_mark_each_source_to_the_same_share():
    maps = [drawn(6, 80, 100), drawn(7, 64, 96) + 9]
    by_source = pick_seeds({"one": maps}, 0.3, "source", sources=["A", "B"])
    over_all = pick_seeds({"one": maps}, 0.3, "dataset")
    for one in by_source:
        assert (one > IGNORE).mean() == pytest.approx(0.3, abs=0.05)
        assert (one < IGNORE).mean() == pytest.approx(0.3, abs=0.05)
    assert (over_all[0] > IGNORE).sum() == 0, "the other laboratory is darker: it has all the seeds of R+"


@pytest.mark.parametrize("scope", ["source", "dataset", "image", "both"])
@pytest.mark.parametrize("value", [0.0, -3.0, 7.5])
def test_a_constant_map_is_neither_sure_nor_unsure(scope, value):
    (found,) = ranks([np.full((9, 13), value)], scope)
    np.testing.assert_allclose(found, 0.5, atol=1e-3)


def test_a_plateau_has_the_rank_of_its_middle():
    one = np.repeat([0.0, 0.0, 1.0, 2.0], 25 * 120).reshape(100, 120)  # a half, a quarter, a quarter
    (found,) = ranks([one], "image")
    assert [float(found[row, 7]) for row in (0, 49, 50, 99)] == pytest.approx([0.25, 0.25, 0.625, 0.875], abs=0.02)


def test_ranks_do_not_depend_on_a_monotonic_change_of_scores():
    one = drawn(1, 40, 56)
    few = np.round(one, 1)  # no interpolated quantile between two values matters
    (first,), (second,) = ranks([few], "image"), ranks([np.exp(few) * 3 - 5], "image")
    np.testing.assert_allclose(first, second, atol=0.002)
    (turned,) = ranks([-few], "image")
    np.testing.assert_allclose(turned, 1 - first, atol=0.002)


def test_seeds_of_one_localizer_by_hand():
    scores = np.repeat(np.linspace(0, 1, 11), 40)[None].repeat(120, axis=0)  # eleven stripes
    (seeds,) = pick_seeds({"one": [scores]}, share=0.3)
    assert seeds.dtype == np.uint8
    found = seeds.reshape(120, 11, 40).astype(int)
    assert (found == found[:1, :, :1]).all()
    for stripe in range(11):
        rank = (stripe + 0.5) / 11  # the share of pixels below, half of its own with them
        if 0.3 < rank < 0.7:
            assert found[0, stripe, 0] == IGNORE
        else:
            assert found[0, stripe, 0] == pytest.approx(IGNORE + 127 * (2 * rank - 1), abs=2)
    assert (found[0, :, 0] == IGNORE).sum() == 5


def test_as_many_pixels_on_each_side_as_asked_for():
    maps = [drawn(2, 80, 100), drawn(3, 64, 96) + 0.5]
    for share in (0.1, 0.3, 0.5):
        seeds = np.concatenate([one.ravel() for one in pick_seeds({"one": maps}, share)])
        assert (seeds > IGNORE).mean() == pytest.approx(share, abs=0.03)
        assert (seeds < IGNORE).mean() == pytest.approx(share, abs=0.03)
        whole = pick_seeds({"one": maps}, share, scope="image")
        for one in whole:
            assert (one > IGNORE).mean() == pytest.approx(share, abs=0.03)
    assert (seeds != IGNORE).mean() > 0.99, "half on each side: no pixel is left out but those in the middle"
    assert (seeds > 0).all(), "0 is left to the surest possible"


def test_the_mean_of_the_localizers_ranks_decides():
    a, b = drawn(4, 200, 240), 100 * drawn(5, 200, 240) ** 3
    (seeds,) = pick_seeds({"a": [a], "b": [b]}, 0.3, weights={"a": 3.0, "b": 1.0})

    def exact(one: np.ndarray) -> np.ndarray:
        return one.ravel().argsort().argsort().reshape(one.shape) / one.size

    wanted = exact(0.75 * exact(a) + 0.25 * exact(b))
    assert (seeds > IGNORE).mean() == pytest.approx(0.3, abs=0.02), "the share, although few are sure of two"
    clear = np.abs(wanted - 0.7) > 0.02
    np.testing.assert_array_equal((seeds > IGNORE)[clear], (wanted > 0.7)[clear])
    on = (seeds != IGNORE) & (np.abs(wanted - 0.5) > 0.22)
    np.testing.assert_allclose((seeds.astype(float) - IGNORE)[on] / 127, (2 * wanted - 1)[on], atol=0.05)


def test_a_weight_of_0_leaves_a_localizer_out():
    a, b = drawn(4, 80, 120), drawn(5, 80, 120)
    (alone,) = pick_seeds({"a": [a], "b": [b]}, 0.4, weights={"a": 1.0, "b": 0.0})
    assert np.array_equal(alone, pick_seeds({"a": [a]}, 0.4)[0])
    assert not np.array_equal(alone, pick_seeds({"a": [a], "b": [b]}, 0.4)[0])


def test_constant_maps_give_no_seed():
    (seeds,) = pick_seeds({"one": [np.full((30, 40), 2.0)]}, 0.4)
    assert (seeds == IGNORE).all()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"share": 0.0}, "share=0.0"),
        ({"share": 0.6}, "share=0.6"),
        ({"scope": "batch"}, "seed_scope='batch'"),
        ({"weights": {"one": 0.0}}, "no teacher has a positive weight"),
    ],
)
def test_bad_wishes_are_refused_in_one_line(arguments, what):
    with pytest.raises(ConfigError, match=what) as caught:
        pick_seeds({"one": [drawn(0, 8, 8)]}, **arguments)
    assert "\n" not in str(caught.value)


def test_kappa_by_hand():
    one = np.array([[1, 1, 1, 0], [0, 0, 0, 0]], bool)
    other = np.array([[1, 1, 0, 0], [0, 0, 0, 1]], bool)
    # 6 of 8 agree; both have 3 of 8: chance is 9/64 + 25/64 = 34/64.
    assert agreement(one, other) == pytest.approx((48 / 64 - 34 / 64) / (30 / 64))
    assert agreement(one, one) == 1
    assert agreement(one, ~one) < 0
    half = np.array([True, False])
    assert agreement(half, ~half) == pytest.approx(-1)
    big, noise = drawn(6, 300, 200) > 0.3, drawn(7, 300, 200) > -0.8
    assert agreement(big, noise) == pytest.approx(0, abs=0.02)
    full, empty = np.ones(5, bool), np.zeros(5, bool)
    assert agreement(full, full) == agreement(empty, empty) == agreement(full, empty) == 0


def seeds_and_scores() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 1, 5, 7, generator=generator, dtype=torch.float64)
    seeds = torch.randint(0, 256, (2, 1, 5, 7), generator=generator).to(torch.uint8)
    seeds[torch.rand(seeds.shape, generator=generator) < 0.4] = IGNORE
    return seeds, scores


@pytest.mark.parametrize("softness", [0.0, 0.3, 1.0])
def test_the_loss_equals_a_loop_over_pixels(softness):
    seeds, scores = seeds_and_scores()
    sums, counts = {1: 0.0, -1: 0.0}, {1: 0, -1: 0}
    for seed, score in zip(seeds.flatten().tolist(), scores.flatten().tolist(), strict=True):
        if seed == IGNORE:
            continue
        side = 1 if seed > IGNORE else -1
        sureness = (seed - IGNORE) / 127
        target = 0.5 + 0.5 * ((1 - softness) * side + softness * sureness)
        p = 1 / (1 + math.exp(-score))
        sums[side] -= target * math.log(p) + (1 - target) * math.log(1 - p)
        counts[side] += 1
    assert min(counts.values()) > 5
    wanted = (sums[1] / counts[1] + sums[-1] / counts[-1]) / 2
    assert float(PartialCrossEntropy(softness)(scores, seeds)) == pytest.approx(wanted, rel=1e-9)


def test_the_loss_by_hand():
    seeds = torch.tensor([[[[255, 128, 1, 1]]]], dtype=torch.uint8)
    scores = torch.tensor([[[[2.0, 50.0, 0.0, -1.0]]]])
    # R+: log(1 + e^-2); R-: the mean of log 2 and log(1 + e^-1); all as certain as can be.
    wanted = (math.log1p(math.exp(-2)) + (math.log(2) + math.log1p(math.exp(-1))) / 2) / 2
    assert float(PartialCrossEntropy(0)(scores, seeds)) == pytest.approx(wanted, rel=1e-6)
    assert float(PartialCrossEntropy(1)(scores, seeds)) == pytest.approx(wanted, rel=1e-6)


def test_the_gradient_is_zero_off_the_seeds_and_nowhere_on_them():
    seeds, scores = seeds_and_scores()
    scores.requires_grad_()
    PartialCrossEntropy(0.5)(scores, seeds).backward()
    on = seeds != IGNORE
    assert bool((scores.grad[~on] == 0).all())
    assert bool((scores.grad[on] != 0).all())
    assert torch.autograd.gradcheck(lambda s: PartialCrossEntropy(0.5)(s, seeds), (scores,))


def test_a_soft_target_has_its_minimum_at_the_teacher_s_sureness():
    seeds = torch.full((1, 1, 1, 1), IGNORE + 64, dtype=torch.uint8)
    target = 0.5 + 0.5 * 64 / 127
    scores = torch.tensor([[[[math.log(target / (1 - target))]]]], requires_grad=True)
    PartialCrossEntropy(1.0)(scores, seeds).backward()
    assert float(scores.grad) == pytest.approx(0, abs=1e-6)


def test_one_side_alone_and_no_seed_at_all():
    _, scores = seeds_and_scores()
    scores.requires_grad_()
    seeds = torch.full(scores.shape, IGNORE, dtype=torch.uint8)
    nothing = PartialCrossEntropy()(scores, seeds)
    nothing.backward()
    assert float(nothing) == 0
    assert bool((scores.grad == 0).all())
    seeds[0, 0, 0, :3] = 255
    alone = PartialCrossEntropy()(scores, seeds)
    wanted = torch.log1p(torch.exp(-scores[0, 0, 0, :3])).mean()
    torch.testing.assert_close(alone, wanted)


def test_both_sides_weigh_the_same_whatever_their_areas():
    seeds = torch.zeros(1, 1, 10, 10, dtype=torch.uint8)
    seeds[0, 0, 0, 0] = 255
    scores = torch.zeros(1, 1, 10, 10, requires_grad=True)
    PartialCrossEntropy(0)(scores, seeds).backward()
    assert float(scores.grad[0, 0, 0, 0]) == pytest.approx(-0.25)
    assert float(scores.grad.sum()) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("softness", [-0.1, 1.1])
def test_softness_is_a_share(softness):
    with pytest.raises(ConfigError, match="softness"):
        PartialCrossEntropy(softness)
    assert PartialCrossEntropy(0.25).settings() == {"softness": 0.25}


def test_a_batch_has_seeds_and_no_mask():
    image, seeds = torch.rand(2, 3, 4, 5), torch.randint(0, 256, (2, 1, 4, 5), dtype=torch.uint8)
    x, y = SeedBatch()({"image": MetaTensor(image), "seeds": MetaTensor(seeds)}, "cpu")
    assert type(x) is type(y) is torch.Tensor
    assert torch.equal(x, image)
    assert torch.equal(y, seeds)
    with pytest.raises(ConfigError, match="no seeds"):
        SeedBatch()({"image": image})
    with pytest.raises(ConfigError, match="learns from image labels only"):
        SeedBatch()({"image": image, "seeds": seeds, "mask": seeds})
    with pytest.raises(ConfigError, match=r"true masks \('truth'\), and this method learns from image labels only"):
        SeedBatch()({"image": image, "seeds": seeds, "truth": seeds[:, 0]})


def test_seeds_of_two_shares_mark_each_side_to_its_own():
    scores = np.random.default_rng(4).random((200, 300))
    (seeds,) = pick_seeds({"one": [scores]}, share=[0.2, 0.6])
    assert (seeds > IGNORE).mean() == pytest.approx(0.2, abs=0.02)
    assert (seeds < IGNORE).mean() == pytest.approx(0.6, abs=0.02)
    assert scores[seeds > IGNORE].min() > scores[seeds == IGNORE].max()
    assert scores[seeds == IGNORE].min() > scores[seeds < IGNORE].max()
    # sureness falls to the rank midway between both shares, 0.7, from either end
    ranks = scores.ravel().argsort().argsort().reshape(scores.shape) / scores.size
    wanted = np.where(ranks > 0.7, (ranks - 0.7) / 0.3, (0.7 - ranks) / 0.7)
    marked = seeds != IGNORE
    np.testing.assert_allclose(abs(seeds.astype(float) - IGNORE)[marked] / 127, wanted[marked], atol=0.08)
    equal = pick_seeds({"one": [scores]}, share=[0.3, 0.3])[0]
    np.testing.assert_array_equal(equal, pick_seeds({"one": [scores]}, share=0.3)[0])


@pytest.mark.parametrize("share", [[0.5, 0.6], [0.0, 0.5], [0.1, 0.2, 0.3], ["0.2", 0.3], True])
def test_seeds_shares_out_of_range_are_refused(share):
    with pytest.raises(ConfigError, match="share"):
        pick_seeds({"one": [np.random.default_rng(4).random((6, 10))]}, share=share)
