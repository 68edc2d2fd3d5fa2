"""Where a new run may begin: what an earlier try left is its own, anything else is not."""

import pytest

from sightline.core.errors import StoreError
from sightline.store.layout import PARTS, require_free


def begun(path):
    """A run killed before its manifest was written."""
    (path / "shards").mkdir(parents=True)
    (path / f"examples.parquet.tmp.1.{'a' * 32}").write_bytes(b"PAR1")


def test_what_a_killed_try_left_is_free(tmp_path):
    for part in PARTS:
        begun(tmp_path / part)
    begun(tmp_path)
    require_free(tmp_path, overwrite=False)


@pytest.mark.parametrize(
    "name", ["notes.txt", "classes/notes.txt", "classes/shards/000000.parquet"]
)
def test_other_files_are_not(tmp_path, name):
    begun(tmp_path / "classes")
    (tmp_path / name).write_text("mine")
    with pytest.raises(StoreError, match="no part of a new run"):
        require_free(tmp_path, overwrite=False)


def test_a_part_that_is_a_file_is_not(tmp_path):
    (tmp_path / "classes").write_text("mine")
    with pytest.raises(StoreError, match="holds classes"):
        require_free(tmp_path, overwrite=False)
