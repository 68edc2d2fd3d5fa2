"""Fitted scores survive a file to the bit, without pickle."""

import numpy as np
import pytest

from sightline.core.errors import DataError
from sightline.zeroshot import ZERO_SHOT_SCORES, score
from sightline.zeroshot.saved import (
    FITTED_SCORES,
    State,
    load_score,
    rebuilt,
    save_score,
    state_of,
)


@pytest.mark.parametrize("name", tuple(ZERO_SHOT_SCORES))
def test_every_score_comes_back_alike(world, tmp_path, name):
    outputs, _ = world.outputs(40)
    fitted = ZERO_SHOT_SCORES[name].fit(world.texts, world.support(4), np.random.default_rng(0))
    assert type(fitted).__name__ in FITTED_SCORES
    save_score(tmp_path / "score.safetensors", fitted, world.texts)
    again, texts = load_score(tmp_path / "score.safetensors")
    assert type(again) is type(fitted)
    assert texts.classes == world.texts.classes
    np.testing.assert_array_equal(texts.vectors, world.texts.vectors)
    before, after = score(fitted, outputs), score(again, outputs)
    np.testing.assert_array_equal(before.label, after.label)
    np.testing.assert_array_equal(before.uncertainty, after.uncertainty)


def test_a_class_outside_the_table_is_refused():
    with pytest.raises(DataError, match="dict is not in the table"):
        state_of({})


def test_an_unknown_class_cannot_be_rebuilt():
    with pytest.raises(DataError, match="called 'Pickle'"):
        rebuilt(State("Pickle", {}, {}))


def test_a_state_that_is_not_whole():
    with pytest.raises(DataError, match="not whole"):
        rebuilt(State("FittedVectorScaling", {}, {"weight": np.ones(2)}))


@pytest.mark.parametrize("content", [b"", b"nothing of the kind"])
def test_a_damaged_file_is_one_line(tmp_path, content):
    (tmp_path / "s.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="no fitted score") as error:
        load_score(tmp_path / "s.safetensors")
    assert "\n" not in str(error.value)


def test_a_file_of_something_else(tmp_path):
    from safetensors.numpy import save_file

    save_file({"x": np.ones(2, dtype=np.float32)}, tmp_path / "s.safetensors")
    with pytest.raises(DataError, match="format version None"):
        load_score(tmp_path / "s.safetensors")
