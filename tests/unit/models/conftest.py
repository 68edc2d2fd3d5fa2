"""The tiny random LLaVA of the differential tests, built once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2] / "differential" / "vlm"))

from tiny_models import Tiny, llava


@pytest.fixture(scope="session")
def tiny_llava() -> Tiny:
    return llava()


@pytest.fixture(scope="session")
def saved_llava(tiny_llava: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny-llava"
    tiny_llava.model.save_pretrained(path)
    tiny_llava.processor.save_pretrained(path)
    return path
