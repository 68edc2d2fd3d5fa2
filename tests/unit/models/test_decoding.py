"""Drawing tokens: inverse cumulative distribution, nucleus, seeds; and what cannot be decoded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import Tiny, example, picture
from transformers.cache_utils import DynamicLayer

from sightline.core.errors import ModelError
from sightline.core.protocols import Request
from sightline.models.cache import RoomyLayer
from sightline.models.decoding import Sampling, _drawn, sample_uniforms

PROBS = [0.5, 0.0, 0.3, 0.2]


def draw(uniform: float, *, temperature: float = 1.0, top_p: float = 1.0) -> int:
    log_probs = torch.tensor([PROBS]).log()
    return int(_drawn(log_probs, torch.tensor([uniform]).double(), Sampling(temperature, top_p)))


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 0), (0.49, 0), (0.51, 2), (0.79, 2), (0.81, 3), (1 - 2**-53, 3)]
)
def test_a_uniform_number_names_its_token(uniform: float, token: int) -> None:
    assert draw(uniform) == token


def test_the_nucleus_keeps_the_fewest_tokens_that_reach_it() -> None:
    # .5 alone does not reach .6; .5 + .3 does, and is renormalised to .625 and .375.
    assert draw(0.62, top_p=0.6) == 0
    assert draw(0.63, top_p=0.6) == 2
    assert draw(1 - 2**-53, top_p=0.6) == 2
    assert draw(1 - 2**-53, top_p=0.49) == 0


def test_low_temperature_is_greedy() -> None:
    assert draw(0.999, temperature=0.01) == 0
    assert draw(0.999, temperature=5e-324) == 0


def test_frequencies_follow_the_tempered_distribution() -> None:
    rng = np.random.default_rng(3)
    uniforms = torch.tensor(rng.random(20_000))
    log_probs = torch.tensor(PROBS).log().expand(20_000, 4)
    drawn = _drawn(log_probs, uniforms, Sampling(2.0, 1.0)).numpy()
    expected = np.sqrt(PROBS) / np.sqrt(PROBS).sum()
    found = np.bincount(drawn, minlength=4) / 20_000
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / 20_000))


def test_a_sample_depends_on_seed_example_and_index_alone() -> None:
    base = sample_uniforms(1, "a", 3, 5)
    assert base.shape == (3, 5)
    np.testing.assert_array_equal(base[:2, :4], sample_uniforms(1, "a", 2, 4))
    for other in (sample_uniforms(2, "a", 3, 5), sample_uniforms(1, "b", 3, 5)):
        assert not np.isclose(base, other).any()
    assert len(np.unique(base)) == base.size
    # Fields are kept apart: ("1", index 1, "2") is not ("1", index 12, "").
    assert not np.isclose(sample_uniforms(1, "2", 2, 1)[1], sample_uniforms(11, "2", 1, 1)[0])
    assert sample_uniforms(1, "a", 0, 5).shape == (0, 5)


def test_nan_logits_are_an_error(tiny_llava: Tiny) -> None:
    weight = tiny_llava.model.get_output_embeddings().weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[9] = float("nan")
        with pytest.raises(ModelError, match="logits hold NaN"):
            tiny_llava.observer().observe(
                [example("a", "What?")], [(picture(1, (9, 9)),)], Request(max_new_tokens=3)
            )
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def test_a_copied_layer_grows_without_touching_the_original() -> None:
    layer = DynamicLayer()
    keys, values = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 6)
    layer.update(keys, values)
    rows = torch.tensor([1, 0, 1])
    copied = RoomyLayer(layer, rows, room=2)
    plain = [keys[rows], values[rows]]
    for count in (1, 1, 70, 1):
        new = torch.randn(3, 3, count, 4), torch.randn(3, 3, count, 6)
        plain = [torch.cat(pair, 2) for pair in zip(plain, new, strict=True)]
        for shown, expected in zip(copied.update(*new), plain, strict=True):
            assert torch.equal(shown, expected)
        assert copied.get_seq_length() == plain[0].shape[2]
    copied.reorder_cache(torch.tensor([2, 0]))
    assert torch.equal(copied.keys, plain[0][[2, 0]])
    assert torch.equal(layer.keys, keys)
    assert layer.get_seq_length() == 5
