"""Makes the deterministic run of `run_plans` importable."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "faults" / "store"))


@pytest.fixture(scope="session")
def written_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, written once; tests copy it."""
    from run_plans import write_run

    return write_run(tmp_path_factory.mktemp("written") / "run").path
