# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The page: what it says, that nothing of it is executed or loaded but its own, that it is bounded and repeatable."""

from __future__ import annotations

import base64
import gc
import hashlib
import io
import json
import re
import shutil
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from glas_wsol.__main__ import main
from glas_wsol.errors import ConfigError, OutputError
from glas_wsol.metrics import NO_WIDTH
from glas_wsol.report import write_report
from glas_wsol.report.pictures import draw_pictures
from glas_wsol.report.run_folder import read_folder
from glas_wsol.results.class_scores import ClassProbabilities
from glas_wsol.results.how_to_read import reading_guide
from glas_wsol.results.verdict import Verdict
from glas_wsol.utils.csv_files import write_csv
from glas_wsol.writers.drawing import write_png
from tests.report.conftest import Page, case, evaluation, inference, tile, training
from tests.test_benchmarks import script

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "\"'><script>alert(2)<",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;",
    "a\u202egnp.exe",
    "=cmd|' !A1",
)


def digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def test_names_from_strangers_are_shown_and_not_executed(tmp_path):
    classes = ("<script>alert(3)</script>", 'b" onmouseover="alert(4)')
    items = [
        case(tmp_path, name, file=f"{k}.png", classes=classes, class_scores=True) for k, name in enumerate(HOSTILE)
    ]
    page = Page(write_report(inference(tmp_path, items)))
    names = page.inside("bdi")
    assert set(HOSTILE) <= set(names)
    assert [len(page.all("script")), len(page.all("style"))] == [1, 2]
    assert len(page.all("img")) == len(HOSTILE), "thumbnails only"
    for tag, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on") or key in ("style", "srcdoc", "action")], tag
    assert 'b" onmouseover="alert(4)' in page.text


def test_it_loads_nothing_and_runs_its_own_script_only(tmp_path):
    page = Page(write_report(evaluation(tmp_path, [case(tmp_path, "a"), case(tmp_path, "b", 0.25)])))
    for tag, attributes in page.elements:
        for key in ("src", "href", "xlink:href", "data", "poster", "srcset"):
            if key in attributes:
                assert re.match(r"data:image/(jpeg|png);base64,|#[\w-]+$", attributes[key]), (tag, attributes[key][:60])
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    said = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert said["default-src"] == "'none'"
    assert said["img-src"] == "data:"
    styles = re.findall(r"<style>(.*?)</style>", page.source, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    assert said["style-src"].split() == [digest(style) for style in styles]
    assert said["script-src"] == digest(script)
    assert not re.search(r"url\((?!#)|@import|https?:", "".join(styles) + script)
    assert "innerHTML" not in script
    assert page.elements.index(("meta", {"http-equiv": "Content-Security-Policy", "content": policy})) < 4


def test_page_references_resolve_and_ids_are_unique(tmp_path):
    page = Page(write_report(evaluation(tmp_path, [case(tmp_path, "a"), case(tmp_path, "b", evidence=False)])))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    used = [a[key][1:] for _, a in page.elements for key in ("href",) if a.get(key, "").startswith("#")]
    used += re.findall(r"url\(#([\w-]+)\)", page.source)
    used += [a[key] for _, a in page.elements for key in ("aria-labelledby", "aria-controls") if key in a]
    assert set(used) <= set(ids)
    assert {"t1", "m1", "k1", "l1", "g1", "hatch"} <= set(used)


def test_report_marks_images_unlike_the_training_images(tmp_path):
    items = [case(tmp_path, name, 0.875) for name in ("known", "strange")]
    for one, value in zip(items, (0.625, 0.0005), strict=True):
        one["localization"] = replace(one["localization"], familiarity=value)
    page = Page(write_report(inference(tmp_path, items)))
    for said in (
        "1 unlike the training images",
        "62.5 %",
        "Unlike the training images : what",
        "below 1 % it is unlike",
    ):
        assert said in page.text, said
    marked = [a["data-strange"] for tag, a in page.elements if tag == "tbody" and "data-strange" in a]
    assert marked == ["no", "yes"]
    assert [a for _, a in page.elements if a.get("class") == "badge"] != []


def test_report_says_that_familiarity_is_not_known(tmp_path):
    page = Page(write_report(inference(tmp_path, [case(tmp_path, "a")])))
    assert "not known: the model does not describe its training images" in page.text
    assert "unlike the training images" not in page.text.replace("on images unlike the training images", "")


def test_an_inference_says_what_was_found_of_every_image(tmp_path):
    items = [case(tmp_path, "sure", 0.875, class_scores=True), case(tmp_path, "blank", evidence=False)]
    out = inference(tmp_path, items)
    failure = {"image": str(tmp_path / "bad.png"), "stage": "read", "what": "the file is empty", "fix": "copy it again"}
    write_csv(out / "failed.csv", [failure])
    page = Page(write_report(out))
    assert "Research only. Not for diagnosis." in page.text
    for said in ("3 images", "1 malignant", "1 no evidence", "1 failed", "ab" * 32, "minmax", "resnet18"):
        assert said in page.text, said
    assert "Decidable : 25.0 %" in page.text
    assert "Undecidable : 75.0 %" in page.text
    assert "the localizer, on the whole image benign 40.0 % malignant 60.0 %" in page.text
    assert "the classifier, on this region alone benign 12.5 % malignant 87.5 % entropy 0.38 nats" in page.text
    assert "the classifier, on this region alone benign 50.0 % malignant 50.0 % entropy 0.69 nats, 100 %" in page.text
    assert "read: the file is empty ; to repair it: copy it again" in page.text
    bodies = {a["id"]: a for a in page.all("tbody") if "id" in a}
    assert [a["data-state"] for a in bodies.values()] == ["evidence", "none", "failed"]
    assert bodies["image-1"]["data-class"] == "malignant"
    assert float(bodies["image-1"]["data-probability"]) == 0.875
    assert bodies["image-2"]["data-class"] == bodies["image-2"]["data-probability"] == ""
    assert len(page.all("figure")) == 4, "three parts of the first, the image alone of the second, none of the third"


def test_an_evaluation_has_figures_intervals_floors_and_truth(tmp_path):
    out = evaluation(tmp_path, [case(tmp_path, "right", 0.75, 1), case(tmp_path, "mistaken", 0.75, 0)])
    report = json.loads((out / "evaluation.json").read_text())
    page = Page(write_report(out))
    value, (low, high) = (report["measures"]["f1_foreground"][key] for key in ("value", "interval"))
    floor = report["floor"]["f1_foreground"]
    line = f"F1+ (%) {100 * value:.1f} {100 * low:.1f} to {100 * high:.1f} * {100 * floor:.1f} 2 higher"  # * no width
    assert line in page.text, page.text[page.text.index("F1+ (%)") :][:200]
    assert "error (%) 50.0" in page.text
    assert ("Not better than a mask of ones: F1+ (%)" in page.text) == (value <= floor)
    assert "patient-2" in page.text
    assert [a["data-wrong"] for a in page.all("tbody") if "id" in a] == ["no", "yes"]
    assert "true class: benign ( wrong )" in page.text
    assert len(page.all("figure")) == 8, "image, decidable, undecidable and truth of each"
    assert f"F1+ {100 * value:.1f} %" in page.text


def test_a_training_has_its_curves_as_drawings_and_as_numbers(tmp_path):
    run = training(tmp_path, 4)
    page = Page(write_report(run))
    assert page.inside("title")[0].startswith("Training:")
    (drawing,) = page.all("svg", role="img")
    assert "the model kept is that of epoch 2" in drawing["aria-label"]
    assert "12 after epoch 1" not in drawing["aria-label"]
    assert "11 after epoch 1, 4.5 after epoch 4" in drawing["aria-label"], "the selection score is not drawn"
    assert len(page.all("circle")) == 4
    assert "1 11 2 7 3 5.3333 4 4.5" in page.text, "of the epoch run twice, the later value"
    assert page.all("tbody", id="image-1") == []
    assert "Images" not in page.inside("h2")


def test_rounds_of_a_second_stage_are_a_table(tmp_path):
    run = training(tmp_path)
    for number, agree in ((1, 0.5), (2, 0.875), (10, 1.0)):
        folder = run / "models" / "seeds" / f"round_{number}"
        folder.mkdir(parents=True)
        record = {"loss": 0.25, "student_agrees": agree, "orientation": {"margin": 0.125} if number == 1 else None}
        (folder / "seeds.json").write_text(json.dumps(record))
    text = Page(write_report(run)).text
    assert "round margin of the labels, nats loss kappa of the masks and their seeds 1 0.125 0.250 0.500" in text
    assert "2 0.250 0.875 3 0.250 1.000" in text


@pytest.mark.parametrize(("alarm", "calm"), [((0.9375, Verdict.ALARM.words), False), ((0.125, "no alarm"), True)])
def test_an_alarm_comes_before_everything_else(tmp_path, alarm, calm):
    for page in (
        Page(write_report(inference(tmp_path, [case(tmp_path, "a")], alarm=alarm))),
        Page(write_report(training(tmp_path / "t", alarm={"score": alarm[0], "verdict": alarm[1], "signals": {}}))),
    ):
        assert page.inside("h2")[0] == "Did the training run fail?"
        assert f"{alarm[1]} ; estimated failure probability of the training run: {100 * alarm[0]:.1f} %" in page.text
        assert ("calm" in next(a["class"] for a in page.all("section") if "alarm" in a.get("class", ""))) == calm
    assert "trusted" not in Page(write_report(inference(tmp_path / "none", [case(tmp_path / "none", "a")]))).text


def test_what_cannot_be_shown_is_said_and_the_rest_is_shown(tmp_path):
    names = ("gone", "mask_gone", "mask_small", "truth_gone", "all_there")
    out = evaluation(tmp_path, [case(tmp_path, name) for name in names])
    (tmp_path / "tiles" / "gone.png").unlink()
    (out / "test" / "masks" / "mask_gone.png").unlink()
    write_png(out / "test" / "masks" / "mask_small.png", tile(0, (10, 10))[..., 0] > 0)
    (tmp_path / "truth" / "truth_gone.png").write_bytes(b"no picture")
    page = Page(write_report(out))
    notes = " ".join(page.inside("p"))
    assert "The image cannot be shown: no such file." in notes
    assert "Image, as the run drew it" in page.text
    assert "No mask is drawn: the run wrote none as PNG or TIFF" in notes
    assert "No mask is drawn: they are of another size." in notes
    assert "No true outlines are drawn: not a PNG" in notes
    assert len(page.all("figure")) == 1 + 2 + 2 + 3 + 4


def test_every_opinion_is_said_once_with_a_mask_and_without(tmp_path):
    out = inference(tmp_path, [case(tmp_path, "a", 0.875, class_scores=True)])
    words = (
        "the class, as the model names it",
        "on this region alone",
        "the classifier, on the decidable region alone",
        "the classifier, on the undecidable region alone",
    )
    text = Page(write_report(out)).text
    assert [text.count(one) for one in words] == [0, 2, 0, 0]
    (out / "masks" / "a.png").unlink()
    entries = json.loads((out / "predictions.json").read_text())
    entries[0]["probabilities"] = {"benign": 0.25, "malignant": 0.75}  # a class named by another than C
    (out / "predictions.json").write_text(json.dumps(entries))
    text = Page(write_report(out)).text
    assert [text.count(one) for one in words] == [1, 0, 1, 1]
    assert "the classifier, on the decidable region alone benign 12.5 %" in text


def test_the_pictures_of_an_image_take_no_more_than_asked_for(tmp_path):
    sizes = {"wide": (90, 400), "tall": (500, 60), "large": (400, 620), "dot": (1, 1), "line": (1, 300)}
    items = [case(tmp_path, name, size=size, truth=False) for name, size in sizes.items()]
    out = inference(tmp_path, items)
    for kilobytes in (8, 25):
        path = write_report(out, tmp_path / f"{kilobytes}.html", kilobytes)
        parts = path.read_text(encoding="utf-8").split("<tbody id=")[1:]
        for name, part in zip(sizes, parts, strict=True):
            pictures = re.findall(r'(?:src|href|d)="([^"]*)"', part)
            assert sum(map(len, pictures)) <= 1.05 * 1000 * kilobytes, name
            (tile_uri,) = re.findall(r'<image [^>]*href="data:image/jpeg;base64,([^"]+)"', part)
            drawn = Image.open(io.BytesIO(base64.b64decode(tile_uri)))
            height, width = sizes[name]
            assert drawn.width <= width
            assert drawn.width * height == pytest.approx(drawn.height * width, abs=max(height, width))
    assert (tmp_path / "25.html").stat().st_size > (tmp_path / "8.html").stat().st_size
    with pytest.raises(ConfigError, match="at least 8"):
        write_report(out, tmp_path / "no.html", 7)


def test_page_again_has_same_bytes_and_replaces_only_a_report(tmp_path):
    out = inference(tmp_path, [case(tmp_path, "a"), case(tmp_path, "b")])
    first = write_report(out)
    assert first == out / "report.html"
    content = first.read_bytes()
    assert write_report(out).read_bytes() == content
    other = tmp_path / "mine.html"
    other.write_text("<p>mine</p>")
    with pytest.raises(OutputError, match="not an earlier report"):
        write_report(out, other)
    assert other.read_text() == "<p>mine</p>"
    with pytest.raises(OutputError, match="make the folder first"):
        write_report(out, tmp_path / "no" / "where.html")
    assert not list(out.glob(".*.part"))


def test_a_page_that_breaks_off_leaves_the_earlier_one(tmp_path, monkeypatch):
    out = inference(tmp_path, [case(tmp_path, "a"), case(tmp_path, "b")])
    content = write_report(out).read_bytes()

    def breaks(*_):
        raise RuntimeError("power cut")

    monkeypatch.setattr("glas_wsol.report.case_rows.draw_pictures", breaks)
    with pytest.raises(RuntimeError, match="power cut"):
        write_report(out)
    assert (out / "report.html").read_bytes() == content
    assert not list(out.glob(".*.part"))


def test_memory_does_not_grow_with_the_images(tmp_path, monkeypatch):
    (tmp_path / "tiles").mkdir()
    grain = np.random.default_rng(0).integers(0, 255, (120, 170, 3), np.uint8)
    write_png(tmp_path / "tiles" / "one.png", grain)
    items = [case(tmp_path, f"i{k}", file="one.png", size=(120, 170), truth=False) for k in range(50)]
    out = inference(tmp_path, items, overlays=False)
    held, taken = [], []

    def draw(*arguments):
        if len(held) in (4, 49):
            gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
        made = draw_pictures(*arguments)
        taken.append(made.bytes)
        return made

    monkeypatch.setattr("glas_wsol.report.case_rows.draw_pictures", draw)
    tracemalloc.start()
    try:
        path = write_report(out)
    finally:
        tracemalloc.stop()
    assert len(held) == 50
    assert min(taken) > 12_000
    assert path.stat().st_size > sum(taken)
    assert held[-1] - held[4] < sum(taken[5:]) / 20, "what is written is not kept"


def test_report_benchmark_counts_images_and_limits_memory(monkeypatch, capsys):
    benchmark = script("report")
    arguments = ["--images", "12", "--size", "120", "180", "--kilobytes", "20"]
    memory = iter(range(1000, 1100))
    monkeypatch.setattr(benchmark, "resident", lambda: 500.0)
    assert benchmark.main(arguments) == 0
    row = capsys.readouterr().out.splitlines()[-1].split(" | ")
    assert row[0] == "| 12"
    assert row[-1] == "500.0, 500.0, 500.0 |"
    assert float(row[2].split(", ")[1]) <= 20
    monkeypatch.setattr(benchmark, "resident", lambda: 20.0 * next(memory))
    assert benchmark.main([*arguments, "--tolerance", "0.001"]) == 1


def test_folders_that_hold_no_results_are_refused(tmp_path):
    for folder, what in ((tmp_path / "none", "no such folder"), (tmp_path, "there are no results here")):
        with pytest.raises(OutputError, match=what):
            write_report(folder)
    (tmp_path / "finished.jsonl").write_text("{}\n")
    with pytest.raises(OutputError, match="has not ended"):
        write_report(tmp_path)
    out = inference(tmp_path, [case(tmp_path, "a")])
    for content, what in (
        ("{", "damaged"),
        ("{}", "not one of a run"),
        ('[{"name": 1}]', "an entry"),
        ("[3]", "an entry"),
    ):
        (out / "predictions.json").write_text(content)
        with pytest.raises(OutputError, match=what):
            write_report(out)
    assert not (out / "report.html").exists()


def test_page_of_edited_table_reads_no_file_outside(tmp_path):
    out = inference(tmp_path, [case(tmp_path, "a")])
    write_png(tmp_path / "secret.png", tile(0)[..., 0] > 130)
    entries = json.loads((out / "predictions.json").read_text())
    entries[0]["name"] = "../../secret"
    (out / "masks").rename(out / "kept")
    (out / "predictions.json").write_text(json.dumps(entries))
    assert read_folder(out).cases[0].mask is None
    shutil.copytree(out / "kept", out / "masks")
    assert read_folder(out).cases[0].mask is None


def test_no_images_at_all_are_a_page_too(tmp_path):
    (tmp_path / "predictions.json").write_text("[]")
    page = Page(write_report(tmp_path))
    assert page.all("table") == []
    assert "Localization" in page.inside("p")


def test_the_command_says_what_to_open(tmp_path, capsys):
    out = inference(tmp_path, [case(tmp_path, "a")])
    assert main(["report", str(out), "--output", str(tmp_path / "page.html"), "--kilobytes", "20"]) == 0
    assert capsys.readouterr().out.startswith(f"open {tmp_path / 'page.html'} (")
    assert Page(tmp_path / "page.html").inside("title") == ["Localization: out"]
    assert main(["report", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.startswith("error: no such folder")


def test_report_says_training_data_and_what_the_alarm_judges(tmp_path):
    out = inference(tmp_path, [case(tmp_path, "a")], alarm=(0.04, "no alarm"))
    assert "Training data not recorded." in Page(write_report(out)).text
    entries = json.loads((out / "predictions.json").read_text())
    entries[0]["trained_on"] = "trained on synthetic tissue (phantom, 85 images)"
    (out / "predictions.json").write_text(json.dumps(entries))
    text = Page(write_report(out)).text
    assert "Trained on synthetic tissue (phantom, 85 images)." in text
    assert "This judges the training run, not these images" in text


@pytest.mark.parametrize(("knows_mask", "rest"), [(True, 0.9), (True, 0.6), (False, 0.9)])
def test_report_shows_region_scores_only_as_evidence(tmp_path, knows_mask, rest):
    made = case(tmp_path, "a", 0.875, class_scores=True)
    scores = replace(
        made["localization"].class_scores, undecidable=ClassProbabilities((1 - rest, rest)), knows_mask=knows_mask
    )
    made["localization"] = replace(made["localization"], class_scores=scores)
    text = Page(write_report(inference(tmp_path, [made]))).text
    assert text.count("the classifier, on this region alone") == (2 if knows_mask else 0)
    assert ("The undecidable region alone names the class as surely" in text) == (knows_mask and rest > 0.875)
    assert all(line in text for line in reading_guide(knows_mask, 2))


def test_report_marks_intervals_without_width(tmp_path):
    out = evaluation(tmp_path, [case(tmp_path, "a")])
    report = json.loads((out / "evaluation.json").read_text())
    report["measures"]["f1_foreground"]["interval"] = [0.5, 0.5002]
    (out / "evaluation.json").write_text(json.dumps(report))
    text = Page(write_report(out)).text
    assert "50.0 to 50.0 *" in text
    assert f"* {NO_WIDTH}." in text


def test_page_of_a_run_not_judged_says_why(tmp_path):
    alarm = {"score": None, "verdict": "not judged", "why": "these images show objects"}
    page = Page(write_report(training(tmp_path / "t", alarm=alarm)))
    assert "not judged: these images show objects" in page.text
    assert "estimated failure probability" not in page.text
    assert "This judges the training run" not in page.text
