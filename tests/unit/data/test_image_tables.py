"""Damage to datasets of pictures in tables: one line each, whatever is wrong."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sightline.core.errors import DataError
from sightline.data.image_sets import load_image_set
from sightline.store.images import image_writer

FEATURES = {
    "image": {"_type": "Image"},
    "label": {"_type": "ClassLabel", "names": ["cat", "dog"]},
}


def png(shade, side=4):
    out = io.BytesIO()
    Image.effect_noise((side, side), shade).convert("RGB").save(out, format="PNG")
    return out.getvalue()


def table(rows=4, side=4):
    images = [{"bytes": png(i + 1, side), "path": ""} for i in range(rows)]
    return pa.table({"image": images, "label": [i % 2 for i in range(rows)]})


def hub(folder, content, rows=4, side=4, columns=("image", "label")):
    """Two Parquet files of one split, the first of which carries the description."""
    stored = table(rows, side).select(columns)
    described = stored.replace_schema_metadata({"huggingface": json.dumps(content)})
    pq.write_table(described, folder / "test-00000-of-00002.parquet", compression="none")
    pq.write_table(stored, folder / "test-00001-of-00002.parquet", compression="none")
    return folder / "test-00001-of-00002.parquet"


def saved(folder, *, info=None, state=None):
    """What the datasets library writes, without that library."""
    with pa.ipc.new_stream(str(folder / "data.arrow"), table().schema) as out:
        out.write_table(table())
    (folder / "dataset_info.json").write_text(json.dumps(info or {"features": FEATURES}))
    whole = {"_data_files": [{"filename": "data.arrow"}], "_split": "test"}
    (folder / "state.json").write_text(json.dumps(whole if state is None else state))
    return folder


def refused(source, run, said):
    with pytest.raises(DataError, match=said) as error:
        load_image_set(source, store_image=image_writer(run / "run"))
    assert "\n" not in str(error.value)


class TestHub:
    def test_whole_ones_are_read_one_after_another(self, tmp_path):
        hub(tmp_path, {"info": {"features": FEATURES}})
        images = load_image_set(tmp_path, store_image=image_writer(tmp_path / "run"))
        assert len(images.examples) == 8

    @pytest.mark.parametrize(
        "content", [[1], {"info": None}, {"info": [1]}, {"info": {"features": [1]}}, 5]
    )
    def test_a_description_of_another_shape(self, tmp_path, content):
        hub(tmp_path, content)
        refused(tmp_path, tmp_path, "no Image beside a ClassLabel")

    def test_names_that_are_no_list(self, tmp_path):
        label = {"_type": "ClassLabel", "names": 5}
        hub(tmp_path, {"info": {"features": {**FEATURES, "label": label}}})
        refused(tmp_path, tmp_path, "the names of column 'label' are '5'")

    def test_a_column_that_is_described_and_not_there(self, tmp_path):
        hub(tmp_path, {"info": {"features": FEATURES}}, columns=["image"])
        refused(tmp_path, tmp_path, r"00000-of-00002.* has the columns image and no 'label'")

    def test_a_second_file_cut_off(self, tmp_path):
        second = hub(tmp_path, {"info": {"features": FEATURES}})
        second.write_bytes(second.read_bytes()[:200])
        refused(tmp_path, tmp_path, r"00001-of-00002\.parquet is damaged")

    def test_by_the_datasets_library(self, tmp_path, monkeypatch):
        pytest.importorskip("datasets", reason="the datasets extra is not installed")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        second = hub(tmp_path, {"info": {"features": FEATURES}})
        second.write_bytes(second.read_bytes()[:200])
        refused(f"hf://{tmp_path}?split=test", tmp_path, r"cannot be loaded .*not a parquet file")
        hub(tmp_path, {"info": None})
        refused(f"hf://{tmp_path}?split=test", tmp_path, "cannot be loaded")

    def test_damage_in_the_middle(self, tmp_path):
        second = hub(tmp_path, {"info": {"features": FEATURES}}, rows=40, side=64)
        content = bytearray(second.read_bytes())
        content[4:60] = b"\xff" * 56  # the header of the first page
        second.write_bytes(bytes(content))
        refused(tmp_path, tmp_path, r"00001-of-00002\.parquet is damaged")


class TestSaved:
    def test_a_whole_one_is_read(self, tmp_path):
        images = load_image_set(saved(tmp_path), store_image=image_writer(tmp_path / "run"))
        assert [e.references[0] for e in images.examples] == ["cat", "dog", "cat", "dog"]

    @pytest.mark.parametrize(
        "state", [{}, {"_data_files": 5}, {"_data_files": ["data.arrow"]}, {"_data_files": [{}]}]
    )
    def test_a_state_without_files(self, tmp_path, state):
        refused(saved(tmp_path, state=state), tmp_path, "state.json has no usable '_data_files'")

    @pytest.mark.parametrize("features", [None, ["image", "label"], 5])
    def test_a_description_without_features(self, tmp_path, features):
        folder = saved(tmp_path, info={"features": features})
        refused(folder, tmp_path, "dataset_info.json has no usable 'features'")

    @pytest.mark.parametrize("splits", [5, "train", [1], {"train": 1}])
    def test_splits_that_are_no_list(self, tmp_path, splits):
        (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
        refused(f"{tmp_path}?split=train", tmp_path, "dataset_dict.json has no usable 'splits'")

    def test_a_file_cut_off(self, tmp_path):
        arrow = saved(tmp_path) / "data.arrow"
        arrow.write_bytes(arrow.read_bytes()[:-200])
        refused(tmp_path, tmp_path, r"data\.arrow is damaged")
