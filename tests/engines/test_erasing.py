# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Three samples through three steps of the recursion, every number worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_cdt
from torch import Tensor

from glas_wsol.engines import erasing
from glas_wsol.engines.erasing import ErasingState

# Sample A is right thrice: surer at t = 1, and at t = 2 exactly as sure as at first, so that l_2 == L0.
# Sample B is wrong at t = 0 (p(y) = 0.4 of two classes) and right ever after.
# Sample C is right at t = 0; at t = 1 it is still right, but less sure: -log 0.6 > L0 = -log 0.7; at t = 2 sure again.
LABEL = torch.tensor([0, 1, 1])
PROBABILITY = [[0.8, 0.4, 0.7], [0.9, 0.9, 0.6], [0.8, 0.9, 0.95]]  # p(y) by step and sample

# Images of 1 x 2 px and 3 channels; the channels are multiples of the first.
FIRST_CHANNEL = [[10.0, 20.0], [1.0, -1.0], [4.0, 6.0]]
CHANNELS = (1.0, -0.5, 3.0)

MASKS = [  # R_t by step and sample
    [[1.0, 0.5], [0.9, 0.3], [0.25, 1.0]],
    [[0.2, 1.0], [1.0, 1.0], [1.0, 1.0]],
    [[0.5, 0.5], [1.0, 1.0], [1.0, 1.0]],
]
# psi_t = exp(-t / 10) p(y) where right and l_t <= L0:
TRUST = [
    [0.8, 0.0, 0.7],  # B wrong
    [0.8143536762323635, 0.0, 0.0],  # exp(-0.1) 0.9 = 0.904837418 * 0.9; B's zero is permanent; C is above L0
    [
        0.6549846024623855,
        0.0,
        0.0,
    ],  # exp(-0.2) 0.8 = 0.818730753 * 0.8: a tie with L0 is trusted; C's zero is permanent
]
# R+* = max(R+*, psi_t R_t):
FOUND = [
    [[0.8, 0.4], [0.0, 0.0], [0.175, 0.7]],  # A 0.8 [1, 0.5]; C 0.7 [0.25, 1]
    [[0.8, 0.8143536762323635], [0.0, 0.0], [0.175, 0.7]],  # A max(0.8, 0.81435 * 0.2), max(0.4, 0.81435 * 1)
    [[0.8, 0.8143536762323635], [0.0, 0.0], [0.175, 0.7]],  # A's 0.65498 * 0.5 = 0.3275 is below both
]
# X* = X* (1 - R+*) where psi_t > 0, compounding:
ERASED = [
    [[2.0, 12.0], [1.0, -1.0], [3.3, 1.8]],  # A 10 * 0.2, 20 * 0.6; C 4 * 0.825, 6 * 0.3
    [[0.4, 2.2277558852116375], [1.0, -1.0], [3.3, 1.8]],  # A 2 * 0.2, 12 * 0.185646324; C is erased no further
    [[0.08, 0.41357469034125716], [1.0, -1.0], [3.3, 1.8]],  # A 0.4 * 0.2, 2.2277559 * 0.185646324
]


def images() -> Tensor:
    return torch.tensor(FIRST_CHANNEL, dtype=torch.float64)[:, None, None, :] * torch.tensor(CHANNELS).view(1, 3, 1, 1)


def forward(step: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the localizer says at a step: scores, losses and masks."""
    p = torch.tensor(PROBABILITY[step], dtype=torch.float64)
    logits = torch.stack([p, 1 - p], dim=1).log()
    logits[LABEL == 1] = logits[LABEL == 1].flip(1)
    return logits, -p.log(), torch.tensor(MASKS[step], dtype=torch.float64)[:, None, None, :]


def run(steps: int = 3, parts: dict[int, list[int]] | None = None) -> list[ErasingState]:
    """States after each step; ``parts`` names the samples of those forwards that run on some only."""
    states = [erasing.start(images())]
    for step in range(steps):
        logits, losses, mask = forward(step)
        if parts and step in parts:
            index = torch.tensor(parts[step])
            states.append(erasing.advance(states[-1], logits[index], losses[index], mask[index], LABEL, index))
        else:
            states.append(erasing.advance(states[-1], logits, losses, mask, LABEL))
    return states[1:]


def assert_rows(values: Tensor, expected: list) -> None:
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=1e-15)


def test_a_fresh_state_has_found_nothing():
    image = images()
    state = erasing.start(image)
    assert state.erased is image
    assert state.step == 0
    assert state.alive.tolist() == [True] * 3
    assert_rows(state.mask[:, 0, 0], [[0.0, 0.0]] * 3)
    assert_rows(state.largest_trust, [0.0] * 3)
    assert state.first_loss is None
    assert state.first_mask is None


def test_trust_by_hand():
    alive = torch.ones(3, dtype=torch.bool)
    first_loss = forward(0)[1]
    for step, expected in enumerate(TRUST):
        logits, losses, _ = forward(step)
        psi = erasing.trust(step, logits, losses, first_loss, LABEL, alive)
        assert_rows(psi, expected)
        alive = psi > 0


@pytest.mark.parametrize(
    ("p", "label", "loss", "alive", "expected"),
    [
        (0.75, 0, 0.3, True, 0.75 * math.exp(-0.2)),
        (0.75, 0, 0.5, True, 0.75 * math.exp(-0.2)),  # l_t == L0 is trusted
        (0.75, 0, 0.5000001, True, 0.0),  # l_t > L0 is not
        (0.75, 1, 0.3, True, 0.0),  # wrong, however small the loss said
        (0.75, 0, 0.3, False, 0.0),  # once zero, always zero
    ],
)
def test_each_condition_of_trust_alone(p, label, loss, alive, expected):
    logits = torch.tensor([[p, 1 - p]], dtype=torch.float64).log()
    one = torch.ones(1, dtype=torch.float64)
    psi = erasing.trust(2, logits, loss * one, 0.5 * one, torch.tensor([label]), torch.tensor([alive]))
    assert float(psi) == pytest.approx(expected, rel=1e-12)


def test_sigma_sets_the_slope_of_the_decay():
    logits = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)
    zero, alive = torch.zeros(1, dtype=torch.float64), torch.tensor([True])
    p = math.exp(2) / (math.exp(2) + math.exp(-1) + math.exp(0.5))
    psi = erasing.trust(3, logits, zero, zero, torch.tensor([0]), alive, sigma=1.5)
    assert float(psi) == pytest.approx(p * math.exp(-2), rel=1e-12)


@pytest.mark.parametrize("step", range(3))
def test_accumulated_mask_and_erased_image_by_hand(step):
    state = run()[step]
    assert state.step == step + 1
    assert state.alive.tolist() == [psi > 0 for psi in TRUST[step]]
    assert_rows(state.mask[:, 0, 0], FOUND[step])
    for channel, factor in enumerate(CHANNELS):
        assert_rows(state.erased[:, channel, 0], [[factor * v for v in row] for row in ERASED[step]])
    assert_rows(state.first_loss, [-math.log(p) for p in PROBABILITY[0]])
    assert_rows(state.first_mask[:, 0, 0], MASKS[0])
    assert_rows(state.largest_trust, [max(t[i] for t in TRUST[: step + 1]) for i in range(3)])


def test_step_leaves_previous_state_and_image_unchanged():
    image = images()
    state = erasing.start(image)
    logits, losses, mask = forward(0)
    erasing.advance(state, logits, losses, mask, LABEL)
    assert torch.equal(image, images())
    assert float(state.mask.abs().sum()) == 0
    assert state.step == 0


@pytest.mark.parametrize("parts", [{1: [0, 2], 2: [0]}, {1: [2, 0]}, {2: [0, 1]}])
def test_forward_on_alive_samples_equals_forward_on_all(parts):
    for part, full in zip(run(parts=parts), run(), strict=True):
        for name in ("erased", "mask", "alive", "first_loss", "first_mask", "largest_trust"):
            assert torch.equal(getattr(part, name), getattr(full, name)), name


def test_mask_gradient_follows_localizer_and_next_image_has_none():
    state = erasing.start(images())
    logits, losses, mask = forward(0)
    mask.requires_grad_()
    state = erasing.advance(state, logits.requires_grad_(), losses, mask, LABEL)
    assert not state.erased.requires_grad
    assert not state.largest_trust.requires_grad
    state.mask.sum().backward()
    assert_rows(mask.grad[:, 0, 0], [[0.8, 0.8], [0.0, 0.0], [0.7, 0.7]])  # psi_0, itself a constant
    assert logits.grad is None
    assert not run()[-1].mask.requires_grad


def test_blank_untrusted_sample_has_empty_mask_and_counts():
    kept = erasing.keep(run()[-1])
    assert_rows(kept.mask[:, 0, 0], FOUND[-1])
    assert kept.counted.tolist() == [True] * 3


def test_plain_keeps_the_first_mask_of_an_untrusted_sample():
    kept = erasing.keep(run()[-1], "plain")
    assert_rows(kept.mask[:, 0, 0], [FOUND[-1][0], MASKS[0][1], FOUND[-1][2]])
    assert kept.counted.tolist() == [True] * 3


def test_skip_omits_only_samples_that_were_never_trusted():
    kept = erasing.keep(run()[-1], "skip")
    assert_rows(kept.mask[:, 0, 0], FOUND[-1])
    assert kept.counted.tolist() == [True, False, True]


@pytest.mark.parametrize("untrusted", ["blank", "plain"])
def test_rescaling_divides_by_the_sample_s_largest_trust(untrusted):
    mask = erasing.keep(run()[-1], untrusted, rescale_trust=True).mask[:, 0, 0]
    of_b = [0.0, 0.0] if untrusted == "blank" else MASKS[0][1]
    # A 0.8 / 0.814353676, 1; C [0.175, 0.7] / 0.7 = R_0
    assert_rows(mask, [[0.9823741494005758, 1.0], of_b, [0.25, 1.0]])


def test_surroundings_by_hand():
    found = torch.zeros(2, 1, 4, 6, dtype=torch.bool)
    found[0, 0, 2, 1] = True
    near = erasing.surroundings(found, 2)
    assert near[0, 0].tolist() == [
        [0.5, 0.5, 0.5, 0.5, 0.0, 0.0],
        [1.0, 1.0, 1.0, 0.5, 0.0, 0.0],
        [1.0, 0.0, 1.0, 0.5, 0.0, 0.0],
        [1.0, 1.0, 1.0, 0.5, 0.0, 0.0],
    ]
    assert near[1].count_nonzero() == 0, "nothing found, nothing beside it"
    assert near.dtype == torch.float32


@pytest.mark.parametrize("radius", [1, 3, 40])
def test_surroundings_fall_with_the_chessboard_distance(radius):
    found = torch.rand(3, 1, 17, 29, generator=torch.Generator().manual_seed(radius)) > 0.98
    assert found.flatten(1).any(1).all()
    for near, region in zip(erasing.surroundings(found, radius), found, strict=True):
        distance = distance_transform_cdt(~region[0].numpy(), metric="chessboard")
        expected = np.where(distance == 0, 0, np.maximum(0, 1 - (distance - 1) / radius))
        np.testing.assert_allclose(near[0].numpy(), expected, rtol=1e-6, atol=1e-6)
    assert erasing.surroundings(torch.ones_like(found), radius).count_nonzero() == 0


def remembering() -> ErasingState:
    """Three samples of 2 x 5 px after a first step: found at the top left, found dimly on the right, never trusted."""
    logits = torch.tensor([[0.9, 0.1], [0.55, 0.45], [0.2, 0.8]], dtype=torch.float64).log()
    mask = torch.full((3, 1, 2, 5), 0.1, dtype=torch.float64)
    mask[0, 0, 0, 0], mask[1, 0, :, 4] = 0.95, 0.6  # 0.55 * 0.6 = 0.33 is found as well: trust only dims it
    mask[2] = 0.9
    label = torch.zeros(3, dtype=torch.long)
    state = erasing.advance(erasing.start(mask.expand(-1, 3, -1, -1)), logits, -logits[:, 0], mask, label)
    assert state.alive.tolist() == [True, True, False]
    return state


EVIDENCE = torch.linspace(0.05, 0.95, 30, dtype=torch.float64).view(3, 1, 2, 5)  # normalised, T
NEAR = [  # a radius of 0.8 of 2 px, rounded: 2 px
    [[0.0, 1.0, 0.5, 0.0, 0.0], [1.0, 1.0, 0.5, 0.0, 0.0]],
    [[0.0, 0.0, 0.5, 1.0, 0.0], [0.0, 0.0, 0.5, 1.0, 0.0]],
    [[0.0] * 5, [0.0] * 5],
]


def test_prior_is_added_before_the_pseudo_threshold():
    mask = torch.sigmoid(8 * (EVIDENCE - 0.5))
    remembered = erasing.remember(mask, remembering(), memory=0.3, radius=0.8, omega=8)
    expected = torch.sigmoid(8 * (EVIDENCE + 0.3 * torch.tensor(NEAR, dtype=torch.float64).unsqueeze(1) - 0.5))
    torch.testing.assert_close(remembered, expected, rtol=1e-14, atol=0)


def test_nothing_is_remembered_before_the_first_step():
    mask = torch.sigmoid(8 * (EVIDENCE - 0.5))
    assert erasing.remember(mask, erasing.start(mask.expand(-1, 3, -1, -1)), 1.0, 0.8, 8) is mask


@pytest.mark.parametrize("part", [[1], [1, 0], [0, 1, 2]])
def test_a_part_of_the_samples_is_remembered_as_in_the_whole(part):
    mask, index = torch.sigmoid(8 * (EVIDENCE - 0.5)), torch.tensor(part)
    whole = erasing.remember(mask, remembering(), 0.3, 0.8, 8)
    assert torch.equal(erasing.remember(mask[index], remembering(), 0.3, 0.8, 8, index), whole[index])


def test_remembered_mask_gradient_is_that_of_pseudo_threshold():
    state = remembering()
    state = dataclasses.replace(state, mask=state.mask.requires_grad_())
    evidence = EVIDENCE.clone().requires_grad_()
    remembered = erasing.remember(torch.sigmoid(8 * (evidence - 0.5)), state, 0.3, 0.8, 8)
    remembered.sum().backward()
    torch.testing.assert_close(evidence.grad, (8 * remembered * (1 - remembered)).detach(), rtol=1e-12, atol=0)
    assert state.mask.grad is None


def test_masks_as_sure_as_single_precision_allows_stay_finite():
    state = remembering()
    state = dataclasses.replace(state, mask=state.mask.float(), largest_trust=state.largest_trust.float())
    for sure in (0.0, 1e-30, 1 - 2**-24, 1.0):
        remembered = erasing.remember(torch.full((3, 1, 2, 5), sure), state, 1.0, 0.8, 30)
        assert ((remembered >= sure * (1 - 1e-6)) & (remembered <= 1)).all()


# Four samples of one row of 2 px and two classes; what each has, and p(k) of M at two steps.
PRESENT = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
P_OF_EACH = [
    [[0.8, 0.6], [0.9, 0.7], [0.3, 0.7], [0.2, 0.1]],
    [[0.9, 0.55], [0.4, 0.2], [0.9, 0.75], [0.9, 0.1]],
]
R_OF_EACH = [
    [[[1.0, 0.5], [0.25, 1.0]], [[0.5, 1.0], [1.0, 1.0]], [[0.9, 0.1], [0.2, 1.0]], [[0.7, 0.6], [1.0, 1.0]]],
    [[[0.2, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 0.2]], [[1.0, 1.0], [1.0, 1.0]]],
]
# A trusts both, then only class 0: 0.55 < 0.6. B's class 1 is absent whatever p; 0.4 does not name class 0. C never
# trusts class 0, 0.75 is above 0.7 and trusted. D is wrong at once, which is permanent.
PSI_OF_EACH = [
    [[0.8, 0.6], [0.9, 0.0], [0.0, 0.7], [0.0, 0.0]],
    [[0.8143536762323635, 0.0], [0.0, 0.0], [0.0, 0.6786280635269696], [0.0, 0.0]],  # exp(-0.1) 0.9, exp(-0.1) 0.75
]
# psi_t R_t, the larger of both steps:
FOUND_OF_EACH = [
    [[[0.8, 0.4], [0.15, 0.6]], [[0.45, 0.9], [0.0, 0.0]], [[0.0, 0.0], [0.14, 0.7]], [[0.0, 0.0], [0.0, 0.0]]],
    [
        [[0.8, 0.8143536762323635], [0.15, 0.6]],
        [[0.45, 0.9], [0.0, 0.0]],
        [[0.0, 0.0], [0.6786280635269696, 0.7]],
        [[0.0, 0.0], [0.0, 0.0]],
    ],
]
# X = (10, 20) for all; first times 1 - max over trusted classes of R+*, then again:
ERASED_OF_EACH = [
    [[2.0, 8.0], [5.5, 2.0], [8.6, 6.0], [10.0, 20.0]],
    [
        [0.4, 1.485170590141092],  # 2 * 0.2, 8 * 0.185646324: class 1 was erased in the first step only
        [5.5, 2.0],
        [2.763798653668062, 1.8],  # 8.6 * 0.321371936, 6 * 0.3
        [10.0, 20.0],
    ],
]


def run_several(parts: dict[int, list[int]] | None = None) -> list[ErasingState]:
    image = torch.tensor([[10.0, 20.0]], dtype=torch.float64).expand(4, 3, 1, 2)
    states = [erasing.start(image, PRESENT > 0)]
    for step in range(2):
        p = torch.tensor(P_OF_EACH[step], dtype=torch.float64)
        losses = -torch.where(PRESENT > 0, p, 1 - p).log()
        mask = torch.tensor(R_OF_EACH[step], dtype=torch.float64).unsqueeze(3).transpose(2, 3)
        index = torch.tensor(parts[step]) if parts and step in parts else None
        seen = [v if index is None else v[index] for v in (torch.logit(p), losses, mask)]
        states.append(erasing.advance(states[-1], *seen, PRESENT, index))
    return states[1:]


@pytest.mark.parametrize("step", range(2))
def test_multi_label_classes_are_trusted_and_erased_separately(step):
    state = run_several()[step]
    assert state.alive.tolist() == [[psi > 0 for psi in sample] for sample in PSI_OF_EACH[step]]
    assert_rows(state.mask[:, :, 0], FOUND_OF_EACH[step])
    for channel in range(3):
        assert_rows(state.erased[:, channel, 0], ERASED_OF_EACH[step])
    largest = [[max(t[i][k] for t in PSI_OF_EACH[: step + 1]) for k in range(2)] for i in range(4)]
    assert_rows(state.largest_trust, largest)
    assert_rows(state.first_mask[:, :, 0], R_OF_EACH[0])


def test_multi_label_trust_needs_class_present_named_no_worse():
    p = torch.tensor([[0.5, 0.49999, 0.7, 0.9, 0.9, 0.6]], dtype=torch.float64)
    label = torch.tensor([[1, 1, 0, 1, 1, 1]])
    alive = torch.tensor([[True, True, True, False, True, True]])
    losses, first = torch.full_like(p, 0.5), torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.49999, 0.6]], dtype=torch.float64)
    psi = erasing.trust(2, torch.logit(p), losses, first, label, alive)
    assert psi[0].tolist() == pytest.approx([0.5 * math.exp(-0.2), 0, 0, 0, 0, 0.6 * math.exp(-0.2)], rel=1e-14)


def test_multi_label_sample_is_alive_while_one_class_is():
    first, second = run_several()
    assert first.samples.tolist() == [True, True, True, False]
    assert first.sound.tolist() == [[True, True], [True, True], [False, True], [False, False]]
    assert second.samples.tolist() == [True, False, True, False]
    assert second.sound.tolist() == [[True, False], [False, False], [False, True], [False, False]]


@pytest.mark.parametrize("part", [[0, 1, 2], [2, 0, 1]])
def test_multi_label_forward_on_alive_samples_equals_all(part):
    for some, full in zip(run_several({1: part}), run_several(), strict=True):
        for name in ("erased", "mask", "alive", "sound", "first_loss", "first_mask", "largest_trust"):
            assert torch.equal(getattr(some, name), getattr(full, name)), name


# Unions over the classes of what was found; A also rescaled by each class's largest trust:
# [0.8, 0.81435] / 0.81435 = [0.98237, 1] and [0.15, 0.6] / 0.6 = [0.25, 1]; C [0.67863, 0.7] / 0.7.
UNIONS = [[0.8, 0.8143536762323635], [0.45, 0.9], [0.6786280635269696, 0.7], [0.0, 0.0]]
RESCALED = [[0.9823741494005758, 1.0], [0.5, 1.0], [0.9694686621813852, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize(("rescale", "expected"), [(False, UNIONS), (True, RESCALED)])
def test_what_is_kept_is_the_union_over_the_classes(rescale, expected):
    kept = erasing.keep(run_several()[-1], rescale_trust=rescale)
    assert kept.mask.shape == (4, 1, 1, 2)
    assert_rows(kept.mask[:, 0, 0], expected)
    assert kept.counted.tolist() == [[True, True]] * 4


def test_plain_keeps_first_region_of_untrusted_present_classes():
    kept = erasing.keep(run_several()[-1], "plain")
    # C: max([0.9, 0.1], [0.67863, 0.7]); D: [0.7, 0.6] of the class it has, not [1, 1] of the one it has not
    assert_rows(kept.mask[:, 0, 0], [*UNIONS[:2], [0.9, 0.7], [0.7, 0.6]])


def test_multi_label_skip_omits_untrusted_classes_and_samples():
    kept = erasing.keep(run_several()[-1], "skip")
    assert_rows(kept.mask[:, 0, 0], UNIONS)
    assert kept.counted.tolist() == [[True, True], [True, True], [False, True], [False, False]]


def test_the_memory_of_several_classes_is_that_of_each():
    state = remembering()  # three samples of one class ...
    both = dataclasses.replace(
        state,
        mask=torch.cat([state.mask[:1], state.mask[1:2]], dim=1),  # ... the first two as two classes of one
        largest_trust=state.largest_trust[:2].unsqueeze(0),
    )
    mask = torch.sigmoid(8 * (EVIDENCE - 0.5))
    alone = erasing.remember(mask, state, memory=0.3, radius=0.8, omega=8)
    together = erasing.remember(mask[:2].transpose(0, 1), both, memory=0.3, radius=0.8, omega=8)
    assert torch.equal(together[0], alone[:2, 0])


@pytest.mark.parametrize("multi_label", [False, True])
def test_judged_is_alive_as_the_next_state(multi_label):
    drawn = torch.Generator().manual_seed(3)
    label = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 1], [1, 0]]) if multi_label else torch.tensor([0, 1, 1, 0, 1])
    image, index, died = torch.rand(5, 3, 6, 4, generator=drawn), None, 0
    state = erasing.start(image, label > 0 if multi_label else None)
    for _ in range(4):
        count = 5 if index is None else len(index)
        logits = torch.randn(count, 2, generator=drawn)
        mask = torch.rand(count, 2 if multi_label else 1, 6, 4, generator=drawn)
        part = label if index is None else label[index]
        losses = torch.rand(count, *part.shape[1:], generator=drawn) / (1 + state.step)
        expected = erasing.judged(state, logits, losses, label, index)
        before, state = state, erasing.advance(state, logits, losses, mask, label, index)
        assert torch.equal(state.alive, expected.alive)
        died += int(before.samples.sum() - expected.samples.sum())
        index = expected.samples.nonzero().squeeze(1)
        if len(index) == 0:
            break
    assert died > 0


# Of sample C of the three, right at every step, the loss test fails at t = 1 alone; B is wrong at once.
TRUST_AGAIN = [TRUST[0], TRUST[1], [TRUST[2][0], 0.0, 0.7777942154240827]]  # exp(-0.2) 0.95


def test_a_passing_loss_test_is_trusted_again():
    state = erasing.start(images())
    for step in range(3):
        logits, losses, mask = forward(step)
        judged = erasing.judged(state, logits, losses, LABEL)
        state = erasing.advance(state, logits, losses, mask, LABEL, permanent_loss_test=False)
        assert judged.alive.tolist() == [psi > 0 for psi in TRUST_AGAIN[step]]
        assert state.alive.tolist() == [True, False, True], "a wrong class is permanent, a failed loss test is not"
        if step == 1:
            assert_rows(state.erased[:, 0, 0], ERASED[1])
    assert_rows(state.mask[:, 0, 0], [*FOUND[2][:2], [TRUST_AGAIN[2][2]] * 2])
    assert_rows(state.erased[2, 0], [[3.3 * (1 - TRUST_AGAIN[2][2]), 1.8 * (1 - TRUST_AGAIN[2][2])]])
