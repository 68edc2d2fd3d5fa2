"""Labelled pictures from every source, and the names of their classes."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sightline.core.errors import DataError, UsageError
from sightline.data.image_sets import (
    TEMPLATES,
    class_names,
    load_image_set,
    load_templates,
    numbers_read_as,
    prompts,
    require_known,
    with_classes,
)
from sightline.data.image_sources import support_source
from sightline.data.objects import CLASSES, DIGIT_CLASSES
from sightline.store.images import image_writer


def png(shade):
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(out, format="PNG")
    return out.getvalue()


def write(folder, *places):
    for at, place in enumerate(places):
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(at))
    return folder


def ids(images):
    return [e.id for e in images.examples]


def labels(images):
    return [e.references[0] if e.references else None for e in images.examples]


class TestFolder:
    def test_one_folder_for_every_class(self, tmp_path):
        images = load_image_set(write(tmp_path, "tabby_cat/a.png", "dog/b.jpg", "dog/x/c.png"))
        assert images.classes == ("dog", "tabby cat")
        assert ids(images) == ["dog/b.jpg", "dog/x/c.png", "tabby_cat/a.png"]
        assert labels(images) == ["dog", "dog", "tabby cat"]

    def test_other_files_are_rejected_and_hidden_ones_passed_over(self, tmp_path):
        write(tmp_path, "cat/a.png", "dog/b.png")
        (tmp_path / "cat" / "notes.txt").write_text("x")
        (tmp_path / "cat" / ".DS_Store").write_text("x")
        images = load_image_set(tmp_path)
        assert [(r.where, r.reason) for r in images.rejected] == [
            ("cat/notes.txt", "the suffix '.txt' is none of a picture")
        ]

    def test_splits_are_chosen_by_name(self, tmp_path):
        write(tmp_path, "train/cat/a.png", "train/dog/b.png", "val/cat/c.png", "val/dog/d.png")
        assert ids(load_image_set(f"{tmp_path}?split=val")) == ["cat/c.png", "dog/d.png"]
        with pytest.raises(UsageError, match=r"holds the splits train, val; .*\?split=train"):
            load_image_set(tmp_path)
        with pytest.raises(UsageError, match="no split 'test'"):
            load_image_set(f"{tmp_path}?split=test")

    def test_pictures_come_in_the_order_of_their_paths_and_linked_folders_are_not_entered(
        self, tmp_path, tmp_path_factory
    ):
        outside = write(tmp_path_factory.mktemp("outside"), "far.png")
        folder = write(
            tmp_path, "cat/b-1/x.png", "cat/b/y.png", "cat/.hidden/z.png", "cat/a.png", "dog/c.png"
        )
        (folder / "cat" / "linked.png").symlink_to(folder / "dog" / "c.png")
        (folder / "cat" / "elsewhere").symlink_to(outside)
        (folder / "cat" / "gone.png").symlink_to(folder / "nothing.png")
        (folder / "cat" / "itself.png").symlink_to(folder / "cat" / "itself.png")
        below = (f for f in (folder / "cat").rglob("*") if f.is_file() and f.name[0] != ".")
        found = ids(load_image_set(folder))
        assert found[:-1] == [f.relative_to(folder).as_posix() for f in sorted(below)]
        assert found == [
            "cat/.hidden/z.png", "cat/a.png", "cat/b/y.png", "cat/b-1/x.png", "cat/linked.png",
            "dog/c.png",
        ]  # fmt: skip
        assert [r.where for r in load_image_set(folder).rejected] == [
            "cat/gone.png",
            "cat/itself.png",
        ]

    @pytest.mark.parametrize("closed", ["", "train", "train/cat", "train/cat/below"])
    def test_a_folder_that_cannot_be_listed_is_named(self, tmp_path, monkeypatch, closed):
        write(tmp_path, "train/cat/a.png", "train/cat/below/b.png", "train/dog/c.png")
        scandir = os.scandir
        closed = str(tmp_path / closed).rstrip("/")

        def listed(folder="."):
            if str(folder) == closed:
                raise PermissionError(13, "Permission denied", folder)
            return scandir(folder)

        monkeypatch.setattr(os, "scandir", listed)
        monkeypatch.setattr(
            Path, "iterdir", lambda folder: [folder / e.name for e in listed(folder)]
        )
        with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)") as error:
            load_image_set(f"{tmp_path}?split=train")
        assert str(error.value).startswith(f"{closed} ")

    def test_a_class_folder_without_pictures_is_a_class(self, tmp_path):
        write(tmp_path, "cat/a.png", "dog/b.png")
        (tmp_path / "empty").mkdir()
        assert load_image_set(tmp_path).classes == ("cat", "dog", "empty")

    def test_one_class_is_one_line(self, tmp_path):
        with pytest.raises(DataError, match=r"1 class was found \('cat'\)"):
            load_image_set(write(tmp_path, "cat/a.png"))

    def test_no_class_folder(self, tmp_path):
        (tmp_path / "a.png").write_bytes(png(0))
        with pytest.raises(DataError, match="has no folders"):
            load_image_set(tmp_path)

    def test_pictures_of_equal_content_share_a_group(self, tmp_path):
        write(tmp_path, "cat/a.png", "dog/b.png")
        (tmp_path / "dog" / "c.png").write_bytes(png(0))
        groups = {e.id: e.group for e in load_image_set(tmp_path).examples}
        assert groups["cat/a.png"] == groups["dog/c.png"] != groups["dog/b.png"]

    def test_a_link_out_of_a_folder_is_refused_after_a_picture_of_that_folder(self, tmp_path):
        home = write(tmp_path / "data", "cat/a.png", "dog/b.png")
        (tmp_path / "secret.png").write_bytes(png(7))
        (home / "cat" / "link.png").symlink_to(tmp_path / "secret.png")
        (home / "cat" / "within.png").symlink_to(home / "dog" / "b.png")
        found = load_image_set(home)
        assert ids(found) == ["cat/a.png", "cat/within.png", "dog/b.png"]
        assert found.examples[1].images[0].path == str(home / "dog" / "b.png")
        assert [(r.where, "leads out" in r.reason) for r in found.rejected] == [
            ("cat/link.png", True)
        ]

    def test_nothing_there(self, tmp_path):
        with pytest.raises(DataError, match="does not exist"):
            load_image_set(tmp_path / "none")


class TestSplitFile:
    @pytest.fixture
    def coop(self, tmp_path):
        folder = write(tmp_path, "images/a.png", "images/b.png", "images/c.png")
        rows = {
            "train": [["a.png", 1, "water_lily"]],
            "val": [],
            "test": [["b.png", 0, "rose"], ["c.png", 1, "water_lily"]],
        }
        (folder / "split_zhou_Flowers.json").write_text(json.dumps(rows))
        return folder

    def test_classes_are_in_the_order_of_their_labels(self, coop):
        images = load_image_set(coop)
        assert images.classes == ("rose", "water lily")
        assert labels(images) == ["rose", "water lily"]
        assert images.name == "split_zhou_Flowers.json?split=test"

    def test_train_has_the_same_classes(self, coop):
        images = load_image_set(f"{coop / 'split_zhou_Flowers.json'}?split=train")
        assert images.classes == ("rose", "water lily")
        assert ids(images) == ["a.png"]

    def test_an_empty_split_is_named(self, coop):
        with pytest.raises(DataError, match=r"split 'val' is empty; .* such as train, test"):
            load_image_set(f"{coop}?split=val")

    def test_a_missing_picture_costs_its_row(self, coop):
        (coop / "images" / "c.png").unlink()
        images = load_image_set(coop)
        assert len(images.examples) == len(images.rejected) == 1

    def test_no_picture_at_all(self, coop):
        for file in (coop / "images").iterdir():
            file.unlink()
        with pytest.raises(DataError, match=r"holds none of the pictures.*--images"):
            load_image_set(coop)

    def test_a_folder_can_be_named(self, coop, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        (coop / "images").rename(elsewhere / "moved")
        assert len(load_image_set(coop, images=elsewhere / "moved").examples) == 2

    @pytest.mark.parametrize(
        "rows",
        [{"train": [["a", 1]], "test": []}, {"train": [["a", "1", "x"]], "test": []}],
    )
    def test_a_wrong_entry_is_named(self, coop, rows):
        (coop / "split_zhou_Flowers.json").write_text(json.dumps(rows))
        with pytest.raises(DataError, match=r"entry 0 of train"):
            load_image_set(coop)

    @pytest.mark.parametrize("more", [{"version": 1}, {"note": None}, {"val": 5}, {"test": "x"}])
    def test_another_entry_is_named(self, coop, more):
        file = coop / "split_zhou_Flowers.json"
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, **more}))
        with pytest.raises(DataError, match=rf"{next(iter(more))}' is .*nothing but splits"):
            load_image_set(coop)

    def test_one_label_of_two_names(self, coop):
        file = coop / "split_zhou_Flowers.json"
        content = json.loads(file.read_text())
        place, label, name = content["test"][0]
        content["test"].append([place, label, f"{name} tree"])
        file.write_text(json.dumps(content))
        with pytest.raises(DataError, match=rf"label {label} has the class names '{name}' and"):
            load_image_set(coop)

    def test_one_class_with_two_labels(self, coop):
        rows = {"train": [["a.png", 0, "x"], ["b.png", 1, "x"]], "test": []}
        (coop / "split_zhou_Flowers.json").write_text(json.dumps(rows))
        with pytest.raises(DataError, match="'x' has the labels 0 and 1"):
            load_image_set(coop)

    def test_two_split_files(self, coop):
        (coop / "split_other.json").write_text('{"train": [], "test": []}')
        with pytest.raises(DataError, match="2 split files"):
            load_image_set(coop)


class TestTable:
    def test_paths_and_labels_by_their_usual_names(self, tmp_path):
        write(tmp_path, "a.png", "b.png")
        (tmp_path / "t.csv").write_text("filename,class\na.png,cat\nb.png,dog\nc.png,cat\n")
        images = load_image_set(tmp_path / "t.csv")
        assert labels(images) == ["cat", "dog"]
        assert [r.where for r in images.rejected] == ["line 4"]

    def test_a_path_twice_is_one_picture(self, tmp_path):
        write(tmp_path, "a.png", "b.png")
        (tmp_path / "t.csv").write_text("path,label\na.png,cat\nb.png,dog\na.png,cat\n")
        images = load_image_set(tmp_path / "t.csv")
        assert [r.reason for r in images.rejected] == ["the id 'a.png' comes twice"]

    def test_no_column_of_pictures(self, tmp_path):
        (tmp_path / "t.csv").write_text("x,y\n1,2\n")
        with pytest.raises(DataError, match=r"no usable picture .*none of the columns x, y"):
            load_image_set(tmp_path / "t.csv")

    def test_tables_have_no_splits(self, tmp_path):
        (tmp_path / "t.csv").write_text("path,label\n")
        with pytest.raises(UsageError, match="split of a table"):
            load_image_set(f"{tmp_path / 't.csv'}?split=test")


class TestSavedDataset:
    @pytest.fixture
    def saved(self, tmp_path):
        datasets = pytest.importorskip("datasets", reason="the datasets extra is not installed")
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "sea_lion"])}
        )
        rows = {
            "image": [{"bytes": png(i), "path": None} for i in range(4)],
            "label": [1, 0, 1, None],
        }
        part = datasets.Dataset.from_dict(rows, features=features)
        datasets.DatasetDict({"train": part, "test": part.select([0, 1])}).save_to_disk(
            str(tmp_path / "saved")
        )
        return tmp_path / "saved"

    def test_read_without_the_library(self, saved, tmp_path):
        images = load_image_set(f"{saved}?split=train", store_image=image_writer(tmp_path / "run"))
        assert images.classes == ("cat", "sea lion")
        assert labels(images) == ["sea lion", "cat", "sea lion", None]

    def test_its_splits(self, saved, tmp_path):
        writer = image_writer(tmp_path / "run")
        assert len(load_image_set(f"{saved}?split=test", store_image=writer).examples) == 2
        with pytest.raises(UsageError, match="holds the splits train, test, none was named"):
            load_image_set(saved, store_image=writer)
        with pytest.raises(UsageError, match="train, test, not 'dev'"):
            load_image_set(f"{saved}?split=dev", store_image=writer)

    def test_one_saved_split_has_no_other(self, saved, tmp_path):
        """Support of another split would else be the very pictures that are tested."""
        writer = image_writer(tmp_path / "run")
        with pytest.raises(UsageError, match=r"test is the one split .*'train' is asked for"):
            load_image_set(support_source("train", str(saved / "test"), 4), store_image=writer)
        assert len(load_image_set(saved / "test", store_image=writer).examples) == 2

    def test_parquet_as_the_hub_stores_it(self, tmp_path):
        info = {
            "info": {
                "features": {
                    "image": {"_type": "Image"},
                    "label": {"_type": "ClassLabel", "names": ["cat", "dog"]},
                }
            }
        }
        table = pa.table(
            {"image": [{"bytes": png(i), "path": ""} for i in range(3)], "label": [0, 1, 0]}
        ).replace_schema_metadata({"huggingface": json.dumps(info)})
        (tmp_path / "data").mkdir()
        pq.write_table(table, tmp_path / "data" / "test-00000-of-00001.parquet")
        images = load_image_set(tmp_path, store_image=image_writer(tmp_path / "run"))
        assert labels(images) == ["cat", "dog", "cat"]

    def test_a_dataset_of_the_hub_by_name_or_folder(self, tmp_path, monkeypatch):
        datasets = pytest.importorskip("datasets", reason="the datasets extra is not installed")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "sea_lion"])}
        )
        rows = {"image": [{"bytes": png(i), "path": None} for i in range(3)], "label": [1, 0, -1]}
        table = pa.table(rows, schema=features.arrow_schema)
        (tmp_path / "hub").mkdir()
        pq.write_table(table, tmp_path / "hub" / "validation-00000-of-00001.parquet")
        images = load_image_set(
            f"hf://{tmp_path / 'hub'}?split=validation", store_image=image_writer(tmp_path / "run")
        )
        assert images.classes == ("cat", "sea lion")
        assert labels(images) == ["sea lion", "cat", None]
        assert images.name == f"{tmp_path / 'hub'}?split=validation"

    def test_a_hub_that_is_not_reached_is_one_line(self, monkeypatch):
        pytest.importorskip("datasets", reason="the datasets extra is not installed")

        def unreachable(*_, **__):
            raise ConnectionError("Couldn't reach 'org/name' on the Hub\n(offline)")

        monkeypatch.setattr("datasets.load_dataset", unreachable)
        with pytest.raises(DataError, match=r"cannot be loaded .*Check name, config") as caught:
            load_image_set("hf://org/name?split=test")
        assert "\n" not in str(caught.value)
        with pytest.raises(UsageError, match="sets 'splt'"):
            load_image_set("hf://org/name?splt=test")

    def test_no_labels(self, tmp_path):
        pq.write_table(pa.table({"x": [1]}), tmp_path / "test.parquet")
        with pytest.raises(DataError, match="no Image beside a ClassLabel"):
            load_image_set(tmp_path)


class TestGenerated:
    def test_scenes_have_all_ninety_classes(self, tmp_path):
        images = load_image_set(
            "scenes-classes:test?n=40&seed=3", store_image=image_writer(tmp_path)
        )
        assert images.classes == CLASSES
        assert len(images.classes) >= 50
        again = load_image_set(
            "scenes-classes:test?n=40&seed=3", store_image=image_writer(tmp_path / "b")
        )
        assert again.sha256 == images.sha256

    def test_as_many_of_every_class(self, tmp_path):
        images = load_image_set("digits:train?per_class=3", store_image=image_writer(tmp_path))
        assert images.classes == DIGIT_CLASSES
        assert labels(images) == list(np.repeat(DIGIT_CLASSES, 3))

    def test_unknown_settings(self, tmp_path):
        with pytest.raises(UsageError, match="m='3'"):
            load_image_set("digits:test?m=3", store_image=image_writer(tmp_path))

    @pytest.mark.parametrize("many", ["n=999999999", "n=20001", "per_class=223"])
    def test_more_than_memory_holds_are_refused(self, many):
        with pytest.raises(UsageError, match="at most 20000 are drawn"):
            load_image_set(f"scenes-classes:test?{many}")

    def test_support_of_another_split_of_the_hub(self):
        data = "hf://org/name?split=test&config=full"
        assert support_source("train", data, 4) == "hf://org/name?split=train&config=full"
        assert support_source("train", "hf://org/name", 4) == "hf://org/name?split=train"

    def test_support_of_another_split(self, tmp_path):
        assert support_source("train", "digits:test?n=9", 4) == "digits:train?per_class=16"
        assert support_source("train", f"{tmp_path}?split=test", 4) == f"{tmp_path}?split=train"
        assert support_source("pool/", "digits:test", 4) == "pool/"
        with pytest.raises(UsageError, match="is a table"):
            support_source("train", "t.csv", 4)


class TestClassNames:
    def test_names_joined_by_commas_match_labels_but_for_underscores(self):
        found = class_names("Sea Lion,cat", {"cat": "cat", "sea_lion": "sea_lion"}, [])
        assert found == {"sea_lion": "Sea Lion", "cat": "cat"}

    def test_whole_numbers_are_places_among_the_names(self, tmp_path):
        write(tmp_path, "a.png", "b.png", "c.png")
        (tmp_path / "t.csv").write_text("path,label\na.png,2\nb.png,0\nc.png,2\n")
        (tmp_path / "names.txt").write_text("rose\nlily\nfern\n")
        images = load_image_set(tmp_path / "t.csv", classes=str(tmp_path / "names.txt"))
        assert images.classes == ("rose", "lily", "fern")
        assert labels(images) == ["fern", "rose", "fern"]
        assert numbers_read_as(images) == "Labels are read as classes: 0 as 'rose', 2 as 'fern'."
        assert numbers_read_as(load_image_set(tmp_path / "t.csv")) is None

    @pytest.mark.parametrize(
        ("names", "found", "wanted"),
        [
            (["2", "1", "0"], ["0", "2"], {"2": "2", "1": "1", "0": "0"}),  # names, not places
            (["a", "b"], ["1", "2"], {"a": "a", "b": "b"}),  # 2 is no place among two
            (["a", "b"], ["0", "b"], {"a": "a", "b": "b"}),
            (["a", "b"], ["00", "1"], {"a": "a", "b": "b"}),
            (["a", "b"], [], {"a": "a", "b": "b"}),
        ],
    )
    def test_other_numbers_are_no_places(self, names, found, wanted):
        assert class_names(names, {}, found) == wanted

    def test_where_no_label_is_known_the_labels_are_named(self, tmp_path):
        write(tmp_path, "a.png", "b.png")
        (tmp_path / "t.csv").write_text("path,label\na.png,7\nb.png,8\n")
        images = load_image_set(tmp_path / "t.csv", classes="rose,lily")
        with pytest.raises(DataError, match=r"None of 2 pictures of t.csv .*rose, lily.*'7', '8'"):
            require_known(images)
        require_known(load_image_set(tmp_path / "t.csv", classes="7,rose"))

    def test_a_map_gives_every_label_its_name(self):
        named = class_names({"digit 3": "3 ", "digit 1": "1"}, {}, ["digit 1", "digit 3"])
        assert named == {"digit 3": "3", "digit 1": "1"}
        with pytest.raises(DataError, match="named 2 times"):
            class_names({"a": "x", "b": "x"}, {}, ["a", "b"])

    def test_a_file_of_names(self, tmp_path):
        (tmp_path / "c.txt").write_text("red fox\n\ncat\n")
        assert class_names(str(tmp_path / "c.txt"), {}, ["cat"]) == {
            "red fox": "red fox",
            "cat": "cat",
        }

    def test_names_of_codes_as_imagenet_lists_them(self, tmp_path):
        (tmp_path / "c.txt").write_text("n01 great white shark\nn02 hen\n")
        found = class_names(str(tmp_path / "c.txt"), {"n01": "n01", "n02": "n02"}, [])
        assert found == {"n01": "great white shark", "n02": "hen"}

    def test_json_lists_and_maps(self, tmp_path):
        (tmp_path / "c.json").write_text('["a", "b"]')
        assert list(class_names(str(tmp_path / "c.json"), {}, [])) == ["a", "b"]
        (tmp_path / "c.json").write_text('{"0": "a", "1": "b"}')
        assert class_names(str(tmp_path / "c.json"), {}, []) == {"0": "a", "1": "b"}

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ("cat,cat", "'cat' is named twice"),
            ("sea lion,sea_lion", "is named twice"),
            ("cat", "1 class was found"),
            ("cat,Cat,CAT,cat", "'cat' is named twice"),
            ("none.txt", "is not a file"),
        ],
    )
    def test_bad_names_are_one_line(self, given, said):
        with pytest.raises(UsageError, match=said) as error:
            class_names(given, {"cat": "cat", "sea_lion": "x"}, [])
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ({"0": ["n0", "zero"], "1": ["n1", "one"]}, r"'0' is \"\['n0', 'zero'\]\".*one name"),
            (["a", None], "1 is 'None'"),
            (["a", "b", {"a": 1}], "2 is \"{'a': 1}\""),
            (["a", "b", 5], "2 is '5'; a list of names"),
            (5, "'the document' is '5'"),
            (None, "'the document' is 'None'"),
            ({"0": "a", "1": 7}, "'1' is '7'"),
            (["a", "", "b"], "Class 1 of 3, counted from 0, has an empty name"),
        ],
    )
    def test_json_of_another_shape(self, tmp_path, content, said):
        (tmp_path / "c.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match=said) as error:
            class_names(str(tmp_path / "c.json"), {}, [])
        assert "\n" not in str(error.value)

    def test_a_byte_order_mark_is_no_letter(self, tmp_path):
        (tmp_path / "c.txt").write_text("cat\ndog\n", encoding="utf-8-sig")
        assert list(class_names(str(tmp_path / "c.txt"), {}, ["cat"])) == ["cat", "dog"]
        (tmp_path / "c.json").write_text('["cat", "dog"]', encoding="utf-8-sig")
        assert list(class_names(str(tmp_path / "c.json"), {}, ["cat"])) == ["cat", "dog"]

    def test_names_are_one_line(self, tmp_path):
        (tmp_path / "c.json").write_text('["red\\nfox", " cat\\u2028 flap "]')
        found = class_names(str(tmp_path / "c.json"), {}, [])
        assert list(found.values()) == ["red fox", "cat flap"]

    def test_case_tells_classes_apart_where_the_data_do(self):
        assert class_names("A,a,b", {}, ["a", "b"]) == {"A": "A", "a": "a", "b": "b"}
        assert class_names("a,A", {}, ["A", "a"]) == {"a": "a", "A": "A"}
        assert class_names("CAT,dog", {}, ["cat", "Cat", "dog"]) == {"CAT": "CAT", "dog": "dog"}
        assert class_names("CAT,dog", {}, ["cat", "dog"]) == {"cat": "CAT", "dog": "dog"}

    def test_two_labels_of_one_name(self, tmp_path):
        (tmp_path / "c.json").write_text('{"0": "crane", "1": "crane"}')
        with pytest.raises(DataError, match="'crane' is named 2 times"):
            class_names(str(tmp_path / "c.json"), {}, [])

    def test_other_classes_take_the_reference_away(self, tmp_path):
        images = load_image_set(write(tmp_path, "cat/a.png", "sea_lion/b.png"))
        other = with_classes(images, ("Sea Lion", "dog"))
        assert labels(other) == [None, "Sea Lion"]
        assert other.classes == ("Sea Lion", "dog")

    def test_other_classes_that_differ_by_case(self, tmp_path):
        folder = write(tmp_path, "a/1.png", "A/2.png", "b/3.png")
        images = load_image_set(folder)
        assert labels(with_classes(images, ("A", "a", "b"))) == labels(images) == ["A", "a", "b"]
        assert labels(with_classes(images, ("a", "B"))) == [None, "a", "B"]


class TestTemplates:
    def test_braces_in_a_name_are_left_alone(self):
        assert prompts(("a {}!",), "{x}") == ["a {x}!"]

    def test_every_built_in_template_has_one_place(self):
        for templates in TEMPLATES.values():
            assert all(t.count("{}") == 1 for t in templates)

    def test_a_file(self, tmp_path):
        (tmp_path / "t.txt").write_text("a {}\n\nthe {}\na {}\n")
        assert load_templates(str(tmp_path / "t.txt"), "photo") == ("a {}", "the {}")

    def test_a_byte_order_mark_is_no_part_of_a_template(self, tmp_path):
        (tmp_path / "t.txt").write_text("a {}\n", encoding="utf-8-sig")
        assert load_templates(str(tmp_path / "t.txt"), "photo") == ("a {}",)

    @pytest.mark.parametrize("text", ["", "no place", "{} and {}"])
    def test_a_template_without_one_place(self, tmp_path, text):
        (tmp_path / "t.txt").write_text(text)
        with pytest.raises(UsageError, match="once"):
            load_templates(str(tmp_path / "t.txt"), "photo")

    def test_no_such_name(self):
        with pytest.raises(UsageError, match="photo, this-is"):
            load_templates("fotos", "photo")


def test_a_limit_is_spread_over_the_source(tmp_path):
    write(tmp_path, *(f"{c}/{i}.png" for c in ("a", "b") for i in range(10)))
    images = load_image_set(tmp_path, limit=4)
    assert labels(images) == ["a", "a", "b", "b"]
    assert images.partial == "--limit 4: 4 of 20, spread evenly"
    assert load_image_set(tmp_path, limit=0.1).partial == "--limit 0.1: 2 of 20, spread evenly"
    assert load_image_set(tmp_path, limit=50).partial is None
    for none in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="a number of pictures or a share"):
            load_image_set(tmp_path, limit=none)
