# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What a training tells MLflow, by MONAI's own handler; MLflow itself, which nobody needs to have, is stood in for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from unittest.mock import MagicMock

from tests.bundles.conftest import BUNDLES, DATA, ROOT, SMALL, config, workflow

SECOND = {
    "refine_epochs": 2,
    "refine_rounds": 1,
    "refine_batch_size": 4,
    "decoder_width": 8,
    "teachers": {"components": 0.0, "stage_one": 1.0, "stain": 0.5},  # the quick ones
}


class Client:
    """Keeps what is logged, run by run."""

    made: ClassVar[list[Client]] = []

    def __init__(self, tracking_uri: str | None) -> None:
        self.uri, self.runs = tracking_uri, Client.made[0].runs if Client.made else {}
        Client.made.append(self)

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=name, lifecycle_stage="active")

    def search_runs(self, experiment):
        return list(self.runs.values())

    def create_run(self, experiment_id, run_name):
        info = SimpleNamespace(run_id=str(len(self.runs)), run_name=run_name, status="RUNNING")
        self.runs[info.run_id] = SimpleNamespace(
            info=info, experiment=experiment_id, data=SimpleNamespace(params={}), metrics=[]
        )
        return self.runs[info.run_id]

    def get_run(self, run_id):
        return self.runs[run_id]

    def log_batch(self, run_id, metrics, params, tags):
        assert all(isinstance(value, (int, float)) for _, value, _, _ in metrics), "what MLflow takes"
        self.runs[run_id].metrics += [(name, step, value) for name, value, _, step in metrics]
        self.runs[run_id].data.params.update(dict(params))

    def set_terminated(self, run_id, status):
        self.runs[run_id].info.status = status


def test_both_stages_and_their_validation_are_tracked(tmp_path, monkeypatch):
    entities = SimpleNamespace(
        Metric=lambda *values: values,
        Param=lambda key, value: (key, value),
        LifecycleStage=SimpleNamespace(ACTIVE="active"),
        RunStatus=SimpleNamespace(FINISHED="FINISHED", to_string=str),
    )
    monkeypatch.setattr(Client, "made", [])
    monkeypatch.setattr("monai.handlers.mlflow_handler.mlflow", MagicMock(MlflowClient=Client, entities=entities))
    bundle, output = BUNDLES[0], tmp_path / "ä out"
    settings = {**SMALL, **DATA[bundle], **SECOND, "passes": 0, "seed": 3, "experiment_name": "mine"}
    paths = {"output_dir": str(output), "bundle_root": str(ROOT / "bundles" / bundle)}
    workflow("train", [config(bundle, "train")], tracking=config(bundle, "mlflow"), **settings, **paths).run()
    first, second = Client.made[0].runs.values()
    (uri,) = {one.uri for one in Client.made}
    assert uri.startswith("sqlite:///")
    assert uri.endswith("mlflow.db")
    assert (first.experiment, first.info.status, second.info.status) == ("mine", "FINISHED", "FINISHED")
    told = {key: first.data.params[key] for key in ("stage", "method", "seed", "passes")}
    assert told == {"stage": "first", "method": "minmax", "seed": "3", "passes": "0"}
    assert (second.data.params["stage"], second.data.params["method"]) == ("second", "minmax_refined")
    names = {name for name, _, _ in first.metrics}
    assert names >= {"loss", "loss_relevant", "loss_irrelevant", "loss_localizer", "classification_error"}
    for run in (first, second):
        assert [step for name, step, _ in run.metrics if name == "loss"] == [1, 2]
    assert not list(output.glob("config_*.json")), "no copy of the config that nothing asks for"


def test_both_bundles_are_tracked_alike():
    one, other = (Path(config(bundle, "mlflow")).read_text(encoding="utf-8") for bundle in BUNDLES)
    assert one == other
