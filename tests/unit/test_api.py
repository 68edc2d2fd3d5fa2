"""The verbs as functions: what is checked before anything is written."""

import pytest

from sightline import api
from sightline.core.errors import StoreError, UsageError


def test_a_model_that_does_not_exist_leaves_nothing_behind(tmp_path):
    pytest.importorskip("torch", reason="the models extra is not installed")
    with pytest.raises(UsageError, match="does not exist"):
        api.collect("./nowhere", "scenes:test?n=3", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_with_other_files_is_left_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("words")
    with pytest.raises(StoreError, match=r"holds thesis\.txt"):
        api.collect("fake", "scenes:test?n=3", tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]
