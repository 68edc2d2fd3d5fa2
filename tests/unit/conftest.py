"""Modules without the shape checks of the test run."""

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location

import pytest


@pytest.fixture
def unchecked(monkeypatch):
    """Loads a module as users run it, to see what it refuses by itself."""

    def load(name):
        spec = spec_from_file_location(
            "unchecked_" + name.rpartition(".")[2], find_spec(name).origin
        )
        module = module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load
