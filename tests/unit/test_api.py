"""The verbs as functions: what is checked before anything is written."""

import pkgutil

import pytest

import sightline
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


def test_every_exported_verb_stays_a_function_whatever_is_imported():
    """A package of the same name would take a verb's place once it is imported."""
    modules = {module.name for module in pkgutil.iter_modules(sightline.__path__)}
    verbs = [name for name in sightline.__all__ if name != "__version__"]
    assert not modules & set(verbs)
    assert set(api.__all__) - set(verbs) == {"audit"}
    assert all(callable(getattr(sightline, name)) for name in verbs)
