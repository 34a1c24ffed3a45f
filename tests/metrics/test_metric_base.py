# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Every metric: its rows give its value, and several processes give what one gives."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.metrics import Metric
from scipy import ndimage
from torch import distributed, multiprocessing

from glas_wsol import metrics as m
from glas_wsol.errors import ConfigError
from glas_wsol.metrics.evaluation_metrics import evaluation_metrics
from tests.metrics.conftest import evaluate, item, smooth_map


def all_metrics() -> dict[str, Metric]:
    """One of each, by the key of its measure where it has one."""
    measured = {key: one for key, one in evaluation_metrics().items() if key in m.MEASURES}
    more = {"cross_entropy": m.CrossEntropy(), "selection_score": m.SelectionScore()}
    return {"classification_error": m.ClassificationError(), **measured, **more}


def items(count: int = 7) -> list[dict]:
    """Images of different sizes: 2 and 5 without truth, 3 without probabilities."""
    random = np.random.default_rng(6)
    made = []
    for i in range(count):
        soft = smooth_map(random, (12 + 3 * i, 31 - 2 * i), 1.5)
        truth = ndimage.label(np.roll(soft, 2, axis=0) > 0.55)[0]
        known = {} if i in (2, 5) else {"truth": truth > 0, "objects": truth}
        probabilities = None if i == 3 else random.dirichlet([1, 1, 1]).tolist()
        made.append(item(soft, **known, probabilities=probabilities, label=i % 3))
    return made


def test_metric_of_every_measure_is_aggregate_of_its_rows():
    assert list(all_metrics())[:-2] == list(m.MEASURES)
    state = evaluate(all_metrics(), [items()[:3], items()[3:]])
    for key, measure in m.MEASURES.items():
        rows = state.metric_details[key].numpy()
        assert rows.shape[0] == (6 if measure.needs == "class" else 5)
        assert rows.dtype == np.float64
        assert state.metrics[key] == measure.aggregate(rows, np.ones((1, len(rows))))[0]
        assert type(state.metrics[key]) is float
        low, high = m.interval(key, rows)
        assert low <= high


# Which images each rank evaluates: uneven shares, one of them with none that can be measured, and none at all anywhere.
SHARES = {
    "uneven": ([0, 1, 2, 3, 4], [5, 6]),
    "one rank has no truth": ([5, 2], [0, 3, 1]),
    "one rank has no probabilities": ([0, 1, 4, 6], [3]),
    "none": ([], []),
}


def on_a_rank(rank: int, folder: str) -> None:
    """Evaluate each rank's share; write the values and how many rows every rank sees."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=300)
    )
    found = {}
    for name, shares in SHARES.items():
        share = [items()[i] for i in shares[rank]] or [{"label": 0}]
        state = evaluate(all_metrics(), [[one] for one in share])
        rows = {key: len(values) for key, values in state.metric_details.items()}
        found[name] = {"values": {k: float(v) for k, v in state.metrics.items()}, "rows": rows}
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(on_a_rank, args=(str(folder),), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", SHARES)
def test_two_processes_give_exactly_what_one_gives(ranks, name):
    alone = evaluate(all_metrics(), [[items()[i] for share in SHARES[name] for i in share] or [{"label": 0}]])
    for rank in ranks:
        assert rank[name]["rows"] == {key: len(rows) for key, rows in alone.metric_details.items()}
        assert list(rank[name]["values"]) == list(alone.metrics)
        for key, value in rank[name]["values"].items():
            np.testing.assert_equal(value, alone.metrics[key], err_msg=key)  # exact; not a number equals itself


def test_another_measure_is_refused():
    with pytest.raises(ConfigError, match="choose one of classification_error, "):
        m.MeasureMetric("f2", lambda _: None)
