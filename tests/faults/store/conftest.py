"""Makes the deterministic run of `run_plans` importable."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "faults" / "store"))


@pytest.fixture(scope="session")
def written_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, written once; tests copy it."""
    from run_plans import write_run

    return write_run(tmp_path_factory.mktemp("written") / "run").path


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """A folder in memory where there is one: syncing costs nothing there."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield path
    shutil.rmtree(path)
