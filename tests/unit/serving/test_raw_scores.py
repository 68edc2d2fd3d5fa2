"""Without a policy every estimator that is asked for shows a score, or why it has none."""

from __future__ import annotations

from typing import Any

import pytest
from running import Running, data_url, picture, running, with_image
from upstreams import upstream

from sightline.core.errors import UsageError
from sightline.estimators import ESTIMATORS
from sightline.models.loading import load_model
from sightline.serving.forwarding import Served
from sightline.serving.server import Settings, build, proxy_of
from sightline.serving.shared import Server
from sightline.serving.trust import NOT_PROBABILITIES, RAW_SCORES, RawScores

CHAT = "/v1/chat/completions"
OPTIONS = {"choices": ["red", "blue"]}
NOT_SHOWN = (
    "choice_margin",
    "confidence_scale",
    "guess_probabilities",
    "verbalised_confidence",
    "verbalised_confidence_reasoned",
)


def trust_of(server: Running, **fields: Any) -> dict[str, Any]:
    messages = with_image("What colour is the circle?", data_url(picture(size=(96, 96))))
    status, document, _ = server.call(CHAT, {"messages": messages, **fields})
    assert status == 200, document
    return dict(document["choices"][0]["trust"])


def is_refused(spec: str) -> bool:
    """Whether the server does not start with an estimator, and says which in one line."""
    said = ""
    try:
        build(Settings("embedded:vlm", estimators=(spec,)))
    except UsageError as error:
        said = str(error)
    assert not said or said.startswith(f"--estimator {spec} ")
    assert "\n" not in said
    return bool(said)


def test_every_estimator_shows_a_score_or_is_refused() -> None:
    shown = tuple(spec for spec in sorted(ESTIMATORS) if not is_refused(spec))
    assert {"sample_agreement", "semantic_entropy", "eigenscore", "option_margin"} <= set(shown)
    assert not {"delta_energy", "noise_visual_information", "harmony"} & set(shown)
    judge = RawScores(shown, 8, named=True)
    with running(load_model("embedded:vlm"), judge=judge) as server:
        trust = trust_of(server, trust=OPTIONS)
        assert set(trust["signals"]) == set(shown)
        assert trust["warnings"] == [NOT_PROBABILITIES]
        free = trust_of(server)
        lacking = set(shown) - set(free["signals"])
        assert lacking == {spec for spec in shown if spec.startswith("option_")}
        said = [one for one in free["warnings"] if one.startswith("no option_margin: ")]
        assert said == ["no option_margin: the answer came without choices, option_logprobs"]
        assert len(free["warnings"]) == 1 + len(lacking)


@pytest.mark.parametrize("spec", NOT_SHOWN)
def test_what_the_model_does_not_show_is_refused_at_the_start(spec: str) -> None:
    with pytest.raises(
        UsageError, match=f"--estimator {spec} needs what embedded:vlm does not show"
    ):
        build(Settings("embedded:vlm", estimators=(spec,)))


@pytest.mark.parametrize(
    "spec", ["delta_energy", "flip_rate", "margin_loss", "noise_visual_uncertainty", "prior_index"]
)
def test_what_takes_perturbed_pictures_is_refused_and_stops_no_engine(spec: str) -> None:
    with pytest.raises(UsageError, match=f"--estimator {spec} reads "):
        build(Settings("embedded:vlm", estimators=(spec,)))


def test_samples_are_drawn_for_a_score_that_reads_them() -> None:
    with running(judge=RawScores(("sample_agreement",), named=True)) as server:
        trust = trust_of(server)
        assert trust["raw_score"] == trust["signals"]["sample_agreement"]
        assert 0 <= trust["raw_score"] <= 1
        assert trust["confidence"] is None
        assert trust["warnings"] == [NOT_PROBABILITIES]
        sampled = trust_of(server, temperature=0.7)
        assert (sampled["raw_score"], sampled["signals"]) == (None, {})
        assert sampled["warnings"][1:] == ["no sample_agreement: the answer came without samples"]


def test_samples_are_drawn_of_an_upstream_too() -> None:
    with upstream() as behind:
        settings = Settings("m", upstream=behind.url, estimators=("sample_agreement",))
        backend = proxy_of(settings, Served("m", frozenset({"m"})), None, None)
        with running(server=Server(backend=backend)) as server:
            trust = server.chat("ok")[1]["choices"][0]["trust"]
        assert trust["raw_score"] == 0
        assert sum(body.get("n", 0) for body in behind.bodies) == 10


def test_scores_that_nobody_named_are_only_missed_together() -> None:
    with upstream() as behind:
        settings = Settings("m", upstream=behind.url)
        backend = proxy_of(settings, Served("m", frozenset({"m"})), None, None)
        with running(server=Server(backend=backend)) as server:
            trust = server.chat("ok")[1]["choices"][0]["trust"]
            assert trust["warnings"] == [NOT_PROBABILITIES]
            bare = server.chat("no logprobs")[1]["choices"][0]["trust"]
        assert bare["signals"] == {}
        assert [one.partition(":")[0] for one in bare["warnings"][1:]] == [
            f"no {spec}" for spec in RAW_SCORES
        ]
