"""Gives every test of this directory each tiny architecture once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import BUILDERS, Tiny


@pytest.fixture(scope="session", params=list(BUILDERS))
def tiny(request: pytest.FixtureRequest) -> Tiny:
    torch.manual_seed(0)
    return BUILDERS[request.param]()
