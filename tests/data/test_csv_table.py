# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from glas_wsol.data import table_datalist
from glas_wsol.errors import ConfigError, DatalistError, SplitError

SPLIT = "image,label,split"
LABEL = "or class, class_name, diagnosis, category, target"


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """Writes a table of lines; the images and masks a0.png to a19.png and m0.png to m19.png exist beside it."""
    for n in range(20):
        (tmp_path / f"a{n}.png").touch()
        (tmp_path / f"m{n}.png").touch()

    def write(*lines: str, encoding: str = "utf-8", newline: str = "\n") -> Path:
        path = tmp_path / "tiles.csv"
        path.write_bytes((newline.join(lines) + newline).encode(encoding))
        return path

    return write


def faults(path: Path, **settings) -> list[str]:
    with pytest.raises(DatalistError) as caught:
        table_datalist(path, **settings)
    assert caught.value.where == str(path)
    return list(caught.value.faults)


def rows(count: int = 20, cell: Callable[[int], str] = lambda n: "") -> list[str]:
    return [f"a{n}.png,{'polyp' if n % 2 else 'normal'}{cell(n)}" for n in range(count)]


def test_images_and_labels_are_enough(write, tmp_path):
    datalist = table_datalist(write("image,label", *rows()))
    assert datalist.name == "tiles.csv"
    assert datalist.classes == ("normal", "polyp")
    assert {split: len(part) for split, part in datalist.splits.items()} == {"train": 16, "valid": 4}
    items = {item["name"]: item for split in datalist.splits for item in datalist.select(split)}
    assert items["a7"] == {"image": str(tmp_path / "a7.png"), "label": 1, "name": "a7"}


def test_every_column(write, tmp_path):
    lines = ["split,note,mask,group,label,image"]
    lines += [
        f"{'train' if n < 8 else 'test'},x,{f'm{n}.png' if n else ''},g{n // 2},{n % 2},a{n}.png" for n in range(10)
    ]
    datalist = table_datalist(write(*lines), fold="patient-3")
    assert {split: len(part) for split, part in datalist.splits.items()} == {"train": 6, "valid": 2, "test": 2}
    items = {item["name"]: item for split in datalist.splits for item in datalist.select(split, masks=True)}
    first, second = items["a0"], items["a1"]
    assert first == {"image": str(tmp_path / "a0.png"), "label": 0, "name": "a0", "group": "g0"}
    assert second["mask"] == str(tmp_path / "m1.png")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(("encoding", "newline"), [("utf-8", "\n"), ("utf-8-sig", "\r\n"), ("utf-8", "\r")])
def test_dialects(write, delimiter, encoding, newline):
    plain = table_datalist(write("image,label", *rows()))
    lines = [" Image , LABEL ", "", *(f" {row} " for row in rows()), " , "]
    lines = [line.replace(",", f" {delimiter} ") for line in lines]
    assert table_datalist(write(*lines, encoding=encoding, newline=newline)).splits == plain.splits


def test_every_cell_may_be_quoted(write, tmp_path):
    (tmp_path / "a,0.png").touch()
    quoted = [", ".join(f'"{cell}"' for cell in row.split(",")) for row in ["image,label", *rows(9)]]
    datalist = table_datalist(write(*quoted, '"a,0.png", "normal"'))
    assert datalist.classes == ("normal", "polyp")
    assert sum(map(len, datalist.splits.values())) == 10


def test_quoted_cells_keep_their_delimiters(write, tmp_path):
    (tmp_path / "one, two; three.png").touch()
    lines = ["image,label,note", '"one, two; three.png","stage 1, early","a', 'b"', *(f"{row}," for row in rows(6))]
    with pytest.raises(SplitError, match="no image of 'stage 1, early'"):
        table_datalist(write(*lines))
    assert faults(write(*lines, "a0.png,normal,")) == ["line 10: image 'a0.png' again, after line 4"]


def test_semicolons_with_commas_in_the_cells(write, tmp_path):
    (tmp_path / "x,1.png").touch()
    lines = ["image;label;notes, etc", "x,1.png;polyp, flat;1,5", *(row.replace(",", ";") for row in rows(10))]
    assert faults(write(*lines), label_names=["normal", "polyp"]) == [
        "line 2: label 'polyp, flat' is none of normal, polyp"
    ]


@pytest.mark.parametrize("title", ["group", "Patient", "patient ID", "case_id", "case-id"])
def test_groups_are_kept_together(write, title):
    path = write(f"image,label,{title}", *rows(cell=lambda n: f",p{n // 2}"))
    for fold in ("paper", "patient-4"):
        splits = table_datalist(path, fold).splits
        assert not {item.group for item in splits["train"]} & {item.group for item in splits["valid"]}
    assert table_datalist(path) == table_datalist(path, "patient-0") != table_datalist(path, "patient-0", seed=1)


def test_the_patient_goes_before_the_case(write):
    path = write("image,label,case_id,patient", *rows(cell=lambda n: f",c{n},p{n // 2}"))
    assert {item.group for part in table_datalist(path).splits.values() for item in part} == {
        f"p{n}" for n in range(10)
    }


def test_without_groups_a_group_fold_is_refused(write):
    with pytest.raises(SplitError, match=r"no group.*stratified-0"):
        table_datalist(write("image,label", *rows()), fold="patient-0")
    with pytest.raises(SplitError, match=r"no group.*stratified-0"):
        table_datalist(write("image,label,group", *rows(cell=lambda n: ",")), fold="patient-0")


def test_the_split_column_wins(write):
    words = ["train", "Training", "VAL", "valid", "validation", "validation", "test", "testing"]
    path = write(SPLIT, *rows(8, cell=lambda n: f",{words[n]}"))
    for fold in ("paper", "stratified-4", "patient-0"):
        splits = table_datalist(path, fold).splits
        names = {split: [item.name for item in part] for split, part in splits.items()}
        assert names == {"train": ["a0", "a1"], "valid": ["a2", "a3", "a4", "a5"], "test": ["a6", "a7"]}
    with pytest.raises(ConfigError, match="no fold 'patient-9'"):
        table_datalist(path, "patient-9")


def test_test_images_alone_can_be_evaluated(write):
    datalist = table_datalist(write(SPLIT, "a0.png,polyp,test"), label_names=["normal", "polyp"])
    assert datalist.select("test")[0]["label"] == 1
    with pytest.raises(SplitError, match="no 'valid' split"):
        datalist.select("valid")


def test_labels_sort_as_numbers_where_they_are(write):
    path = write("image,label", *(f"a{n}.png,{(n % 4) * 5}" for n in range(20)))
    assert table_datalist(path).classes == ("0", "5", "10", "15")


def test_label_names_fix_order_and_refuse_others(write):
    path = write("image,label", *rows())
    datalist = table_datalist(path, label_names=["polyp", "normal"])
    assert datalist.classes == ("polyp", "normal")
    assert next(item.label for item in datalist.splits["train"] if item.name == "a7") == 0
    assert len(faults(path, label_names=["polyp", "cancer"])) == 10
    with pytest.raises(SplitError, match="no image of 'cancer'"):
        table_datalist(path, label_names=["normal", "polyp", "cancer"])
    for names in ("normal", ["normal"], ["normal", "normal"]):
        with pytest.raises(ConfigError, match="label_names"):
            table_datalist(path, label_names=names)


def test_paths_may_be_absolute_or_lead_out_if_they_exist(write, tmp_path):
    below = tmp_path / "below"
    below.mkdir()
    lines = [f"../a{n}.png,{n % 2}" if n % 3 else f"{tmp_path}/a{n}.png,{n % 2}" for n in range(20)]
    (below / "t.csv").write_text("\n".join(["image,label", *lines]))
    items = [item for part in table_datalist(below / "t.csv").splits.values() for item in part]
    assert {item.name for item in items} == {f"a{n}" for n in range(20)}
    assert all(item.image.is_file() for item in items)
    (below / "t.csv").write_text("\n".join(["image,label", *lines, "../../../../../etc,1", "../below,0"]))
    assert faults(below / "t.csv") == [
        "line 22: image '../../../../../etc' is not a file",
        "line 23: image '../below' is not a file",
    ]


def test_every_fault_at_once_with_its_line(write):
    path = write(
        "image,label,mask,group,split",
        "a0.png,normal,m0.png,g0,train",
        "a1.png,,m1.png,g1,train",
        ",polyp,,g2,train",
        "",
        "gone.png,polyp,,g3,train",
        "a2.png,polyp,gone.png,g4,train",
        "a0.png,normal,,g5,train",
        "a2.png,polyp,,g6,valid",
        "a3.png,polyp,,g0,test",
        "a4.png,normal,,,valid",
        "a5.png,normal,,g7,later",
        "a6.png,normal,,g8,",
        "a7.png,cancer,,g9,test",
        "a8,1.png,polyp,,g9,test",
        "a9.png,Polyp,,g10,train",
        "=cmd|'/C calc'!A0,polyp,,g11,train",
    )
    assert sorted(faults(path)) == [
        "label 'cancer' is in test and not in train",
        "labels 'polyp' (line 4) and 'Polyp' (line 16) are one class spelt twice",
        "line 10: group 'g0' is in test and, on line 2, in train",
        "line 11: blank group",
        "line 12: 'later' is not a split (give train, valid or test)",
        "line 13: blank split",
        "line 15: 6 cells under 5 titles (quote what has commas)",
        "line 17: image \"=cmd|'/C calc'!A0\" is not a file",
        "line 3: blank label",
        "line 4: blank image",
        "line 6: image 'gone.png' is not a file",
        "line 7: mask 'gone.png' is not a file",
        "line 8: image 'a0.png' again, after line 2",
        "line 9: image 'a2.png' again, after line 7 (in train there, in valid here)",
    ]


def test_one_image_under_two_names_is_one_image(write, tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "a0.png")
    assert faults(write("image,label", *rows(), "./link.png,polyp", "../" + tmp_path.name + "/a1.png,polyp")) == [
        "line 22: image './link.png' again, after line 2",
        f"line 23: image '../{tmp_path.name}/a1.png' again, after line 3",
    ]


def test_one_label_is_nothing_to_learn(write):
    assert faults(write("image,label", "a0.png,normal", "a1.png,normal")) == [
        "the only label is 'normal': learning needs images of two classes at least"
    ]
    assert faults(write(SPLIT, "a0.png,normal,train", "a1.png,normal,train", "a2.png,polyp,test")) == [
        "the only label in train is 'normal'",
        "label 'polyp' is in test and not in train",
    ]


def test_table_class_missing_in_valid_is_refused_in_test_is_not(write):
    lines = [SPLIT, "a0.png,normal,train", "a1.png,polyp,train", "a2.png,polyp,test"]
    assert len(table_datalist(write(*lines)).splits["test"]) == 1
    with pytest.raises(SplitError, match=r"valid split .* no image of 'normal'"):
        table_datalist(write(*lines, "a3.png,polyp,valid"))


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([""], "it is empty"),
        ([" ", "\t"], "it is empty"),
        (["image,label"], "it has a header and no rows"),
        (["image,label", " , "], "it has a header and no rows"),
        (["image,kind", "a0.png,1"], f"there is no column 'label' ({LABEL}); the columns are image, kind"),
        (["a0.png,1", "a1.png,2"], f"there is no column 'label' ({LABEL}); the columns are a0.png, 1"),
        (["image,label,image", "a0.png,1,a1.png"], "column 'image' is there twice"),
        (["image,label", 'a0.png,"1'], "it is not a table (unexpected end of data)"),
    ],
)
def test_tables_that_are_none(write, lines, fault):
    assert fault in faults(write(*lines))


def test_text_that_is_not_utf8(write):
    assert faults(write("image,label", "é.png,1", encoding="utf-16")) == ["it is not UTF-8 text"]
    assert faults(write("image,label", "é.png,1", encoding="latin-1")) == ["it is not UTF-8 text"]


def test_cells_that_cannot_be_paths(write):
    found = faults(write("image,label", *rows(4), "x" * 5000 + ".png,polyp"))
    assert len(found) == 1
    assert found[0].startswith("line 6: image 'xxx")


def test_a_folder_stands_for_its_table(write, tmp_path):
    path = write("image,label", *rows())
    assert table_datalist(tmp_path) == table_datalist(path)
    (tmp_path / "notes.csv").write_text("x")
    with pytest.raises(DatalistError, match=r"no table here: looked for datalist\.csv, index\.csv or one single"):
        table_datalist(tmp_path)
    path.rename(tmp_path / "index.csv")
    assert table_datalist(tmp_path).name == "index.csv"
    with pytest.raises(DatalistError, match="no such file"):
        table_datalist(path)


def test_the_order_of_rows_does_not_change_the_fold(write):
    valid = {item.name for item in table_datalist(write("image,label", *rows())).splits["valid"]}
    assert {item.name for item in table_datalist(write("image,label", *rows()[::-1])).splits["valid"]} == valid


@pytest.mark.parametrize(
    ("title", "meant"), [("grp", "group"), ("maks", "mask"), ("splt", "split"), ("patient_idd", "patient_id")]
)
def test_a_misspelt_optional_column_is_a_fault_and_not_ignored(write, title, meant):
    table = write(f"image,label,{title}", *rows(cell=lambda n: ",x"))
    assert f"column {title!r} is not known: did you mean {meant!r}?" in " ".join(faults(table))


def test_other_columns_may_stand_in_the_table(write):
    assert len(table_datalist(write("image,label,stain,magnification", *rows(cell=lambda n: ",HE,20"))).splits) == 2


def several_rows(count: int = 20) -> list[str]:
    """Every third image is of both, in either order; the others of one."""
    words = ["stroma", "tumour", '" tumour ; stroma"', "stroma", "tumour", "stroma;tumour"]
    return [f"a{n}.png,{words[n % 6]}" for n in range(count)]


def test_a_label_may_name_several_classes_where_that_is_said(write):
    datalist = table_datalist(write("image,label", *several_rows()), multi_label=True)
    assert datalist.classes == ("stroma", "tumour")
    items = {item["name"]: item["label"] for split in datalist.splits for item in datalist.select(split)}
    assert len(items) == 20
    for n in range(20):
        assert items[f"a{n}"].dtype == np.float32
        assert items[f"a{n}"].tolist() == [[1, 0], [0, 1], [1, 1]][n % 3]


def test_table_multi_label_keeps_order_of_label_names(write):
    lines = ["image,label,split", "a0.png,x;z,train", "a1.png,y,train", "a2.png,z;y;x,valid"]
    names = ["z", "y", "x"]
    datalist = table_datalist(write(*lines), label_names=names, multi_label=True)
    assert [item["label"].tolist() for item in datalist.select("train")] == [[1, 0, 1], [0, 1, 0]]
    assert [item.labels for item in datalist.splits["valid"]] == [(0, 1, 2)]


def test_several_classes_in_a_table_of_semicolons_are_quoted(write):
    lines = [row.replace(",", ";").replace("stroma;tumour", '"stroma;tumour"') for row in several_rows()]
    datalist = table_datalist(write("image;label", *lines), multi_label=True)
    assert datalist == table_datalist(write("image,label", *several_rows()), multi_label=True)


def test_table_several_classes_without_multi_label_hint_at_it(write):
    found = faults(write("image,label", *several_rows(6)))
    hint = "set multi_label=true if images may have several classes"
    assert found == [
        f"line 4: label 'tumour ; stroma' has a ';': {hint}",
        f"line 7: label 'stroma;tumour' has a ';': {hint}",
    ]


def test_faults_of_labels_of_several_classes(write):
    lines = ["a0.png,x;y", "a1.png,x;", "a2.png,y;x;y", "a3.png,w;x", "a4.png,;", "a5.png,"]
    names = {"label_names": ["x", "y"], "multi_label": True}
    assert faults(write("image,label", *lines), **names) == [
        "line 7: blank label",
        "line 3: label 'x;' has a blank class",
        "line 4: label 'y;x;y' names 'y' twice",
        "line 6: label ';' has a blank class",
        "line 5: label 'w' is none of x, y",
    ]
    lines = ["a0.png,x,train", "a1.png,y,train", "a2.png,x;z,test"]
    assert faults(write(SPLIT, *lines), multi_label=True) == ["label 'z' is in test and not in train"]
    with pytest.raises(ConfigError, match="give true or false"):
        table_datalist(write("image,label", *lines), multi_label="two")


# Dialects of spreadsheets, titles, paths of other systems


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("first", ["sep={}", "SEP={}", '"sep={}"', "sep={};;"])
@pytest.mark.parametrize(("encoding", "newline"), [("utf-8", "\n"), ("utf-8-sig", "\r\n"), ("utf-8", "\r")])
def test_first_line_that_names_the_delimiter(write, delimiter, first, encoding, newline):
    plain = table_datalist(write("image,label", *rows()))
    lines = [first.format(delimiter), *(row.replace(",", delimiter) for row in ["image,label", *rows()])]
    path = write(*lines, encoding=encoding, newline=newline)
    assert table_datalist(path).splits == plain.splits
    path = write(*lines, f"gone.png{delimiter}polyp", encoding=encoding, newline=newline)
    assert faults(path) == ["line 23: image 'gone.png' is not a file"]


def test_a_delimiter_that_cannot_be_one_is_refused(write):
    assert faults(write('sep="', "image,label", *rows()))[0].endswith('the columns are sep="')


@pytest.mark.parametrize("image", ["Image", "FILE", "file name", "FileName", "filepath", "Path", "image-path", "IMG"])
@pytest.mark.parametrize("label", ["Class", "diagnosis", "CLASS NAME", "label\u200b"])
@pytest.mark.parametrize("group", ["PatientID", "Patient No", "subject", "Case"])
def test_synonyms_of_titles(write, image, label, group):
    cells = [f"{n // 2},{row}" for n, row in enumerate(rows())]
    assert table_datalist(write(f"{group},{image},{label}", *cells)) == table_datalist(
        write("patient,image,label", *cells)
    )


@pytest.mark.parametrize("mask", ["mask", "Annotation", "mask_path", "segmentation"])
@pytest.mark.parametrize("split", ["Split", "SET", "subset", "partition"])
def test_synonyms_of_optional_titles(write, mask, split):
    words = ["Train", "train", "TRAINING", "val", "dev", "Validation", "Testing", "test"]
    found = table_datalist(write(f"image,label,{mask},{split}", *rows(8, lambda n: f",m{n}.png,{words[n // 2 * 2]}")))
    assert {name: len(part) for name, part in found.splits.items()} == {"train": 4, "valid": 2, "test": 2}
    assert all(item.mask for part in found.splits.values() for item in part)


def test_columns_that_are_not_read_are_said(write):
    path = write("image,label,path,stain,patient_age", *rows(cell=lambda n: ",x,HE,70"))
    assert table_datalist(path).warnings == ("columns that are not read: path, stain, patient_age",)
    assert table_datalist(write("image,label", *rows())).warnings == ()


def test_paths_with_backslashes_are_read_everywhere(write, tmp_path):
    (tmp_path / "below").mkdir()
    for n in range(20):
        (tmp_path / f"a{n}.png").rename(tmp_path / "below" / f"a{n}.png")
    found = table_datalist(write("image,label", *(f"below\\{row}" for row in rows())))
    assert found == table_datalist(write("image,label", *(f".\\below/{row}" for row in rows())))
    assert {item.image.parent for part in found.splits.values() for item in part} == {tmp_path / "below"}
    assert faults(write("image,label", *(f"below\\{row}" for row in rows()), "below/a0.png,normal")) == [
        "line 22: image 'below/a0.png' again, after line 2"
    ]


@pytest.mark.parametrize("path", ["C:\\data\\a0.png", "d:/data/a0.png", "\\\\server\\share\\a0.png"])
def test_windows_paths_of_another_machine_are_said(write, path):
    (fault,) = faults(write("image,label", *rows(4), f"{path},normal"))
    assert fault.endswith(
        "is not a file, a Windows path that does not exist on this machine: give paths relative to the table"
    )


def test_composed_letters_name_the_file_of_decomposed_ones(write, tmp_path):
    (tmp_path / "e\u0301te\u0301.png").touch()
    found = table_datalist(write("image,label", "\u00e9t\u00e9.png,normal", *rows(9)[1:]))
    assert sum(map(len, found.splits.values())) == 9


@pytest.mark.parametrize("cell", ["nan", "NaN", "NA", "N/A", "null", "<NA>", ""])
def test_cells_without_a_value_are_blank(write, cell):
    assert faults(write("image,label", *rows(6), f"a7.png,{cell}")) == ["line 8: blank label"]
    assert faults(write("image,label,patient", *rows(6, lambda n: f",{n}"), f"a7.png,polyp,{cell}")) == [
        "line 8: blank group"
    ]
    found = table_datalist(write("image,label,mask", *rows(10, lambda n: f",{cell}")))
    assert not any(item.mask for part in found.splits.values() for item in part)


def test_train_and_test_alone_make_the_validation_of_a_fold(write):
    lines = rows(20, lambda n: f",p{n // 2},{'train' if n < 16 else 'test'}")
    path = write("image,label,patient,split", *lines)
    found = table_datalist(path, "patient-1")
    plain = table_datalist(write("image,label,patient", *(line.rpartition(",")[0] for line in lines[:16])), "patient-1")
    assert (found.splits["train"], found.splits["valid"]) == (plain.splits["train"], plain.splits["valid"])
    assert len(found.splits["test"]) == 4
    (said,) = found.warnings
    assert f"is taken ({len(found.select('valid'))}, fold patient-1)" in said


def test_train_that_gives_no_fold_says_what_training_needs(write):
    found = table_datalist(write(SPLIT, *rows(2, lambda n: ",train"), "a2.png,normal,test"))
    (said,) = found.warnings
    assert said.startswith("no image is for validation, so nothing can be trained: ")
    with pytest.raises(
        SplitError, match=r"no 'valid' split .*mark images of every class as valid in the data, or choose"
    ):
        found.select("valid")


def test_a_class_of_one_image_is_said(write):
    with pytest.raises(SplitError, match=r"add images of 'rare', which has one only: training and validation need one"):
        table_datalist(write("image,label", *rows(10), "a11.png,rare"))


def test_a_class_of_one_patient_is_said(write):
    lines = [f"{row},{0 if n % 2 else n}" for n, row in enumerate(rows())]
    with pytest.raises(SplitError, match=r"no image of 'polyp', whose images are all of one patient.*stratified-0"):
        table_datalist(write("image,label,patient", *lines), "patient-3")


def test_sources_reach_every_item(write):
    path = write("image,label,Laboratory", *rows(cell=lambda n: f",{'Warwick' if n < 12 else 'Shenyang'}"))
    datalist = table_datalist(path)
    assert datalist.warnings == ()
    found = {item["name"]: item["source"] for split in datalist.splits for item in datalist.select(split)}
    assert found["a3"] == "Warwick"
    assert found["a12"] == "Shenyang"
    assert len(found) == 20


def test_a_table_without_sources_gives_none(write):
    for line in ("image,label,source", "image,label,note"):
        datalist = table_datalist(write(line, *rows(cell=lambda n: ",")))
        assert all("source" not in item for item in datalist.select("train"))


def test_a_source_spelt_twice_or_blank_is_a_fault(write):
    lines = rows(cell=lambda n: "," + {3: "WARWICK", 5: ""}.get(n, "Warwick"))
    assert faults(write("image,label,scanner", *lines)) == [
        "line 7: blank source",
        "sources 'Warwick' (line 2) and 'WARWICK' (line 5) are one laboratory spelt twice",
    ]


def test_a_patient_of_two_sources_stays_together(write):
    path = write("image,label,patient,site", *rows(cell=lambda n: f",P{n % 10},{'A' if n < 10 else 'B'}"))
    datalist = table_datalist(path, fold="patient-1")
    train, valid = ({item["group"] for item in datalist.select(split)} for split in ("train", "valid"))
    assert not train & valid
