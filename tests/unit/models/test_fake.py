"""The fake model shows every feature, changes with the image, and does not depend on batches."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sightline.core.condition_names import asked_condition
from sightline.core.errors import ModelError
from sightline.core.features import FOLLOW_UPS, Feature
from sightline.core.protocols import Request
from sightline.core.records import link
from sightline.core.types import Example, ImageRef
from sightline.data.prompt_forms import FOLLOW_UP_FORMS
from sightline.data.prompts import PromptStyle
from sightline.estimators import ESTIMATORS
from sightline.models import load_model
from sightline.models.fake import FakeModel

REF = ImageRef("a.png", "0" * 64)
EXAMPLES = [
    Example(id="free", question="What?", images=(REF,)),
    Example(id="choice", question="Which?", images=(REF,), choices=("a", "b c", "d")),
    Example(id="bare", question="Why?"),
]
IMAGES = [(Image.new("RGB", (4, 4), "red"),), (Image.new("RGB", (4, 4), "blue"),), ()]
REQUEST = Request(
    max_new_tokens=12, n_samples=4, layers=(0.5, 1.0, 4), options=True, blank=True, top_k_logprobs=3
)


def test_every_observed_feature_is_there() -> None:
    records = {tuple(r.key): r for r in load_model("fake").observe(EXAMPLES, IMAGES, REQUEST)}
    assert list(records) == [
        ("free", "clean"),
        ("free", "blank"),
        ("choice", "clean"),
        ("choice", "blank"),
        ("bare", "clean"),
    ]
    record = records["choice", "clean"]
    for feature in (
        Feature.TOP_LOGPROBS,
        Feature.HIDDEN,
        Feature.IMAGE_HIDDEN,
        Feature.OPTION_LOGPROBS,
        Feature.BLANK_LOGPROBS,
        Feature.BLANK_LETTER_LOGPROBS,
    ):
        assert record.has(feature), feature
    assert record.layers == (2, 4)
    assert len(record.samples) == 4
    assert not records["bare", "clean"].has(Feature.IMAGE_HIDDEN)
    best = record.array(Feature.TOP_TOKEN_IDS)[:, 0]
    np.testing.assert_array_equal(best, record.answer.token_ids)


def test_letters_are_shown_only_where_the_prompt_asks_for_one() -> None:
    style = PromptStyle(choice_instruction="Answer with the option's text.")
    record = FakeModel(style).observe(EXAMPLES[1:2], IMAGES[1:2], REQUEST)[0]
    assert record.has(Feature.BLANK_OPTION_LOGPROBS)
    assert not record.has(Feature.LETTER_LOGPROBS)
    assert not record.has(Feature.BLANK_LETTER_LOGPROBS)


def test_it_replies_to_every_follow_up_question_it_can_be_asked() -> None:
    names = tuple(question.value for question in FOLLOW_UP_FORMS)
    request = Request(max_new_tokens=4, blank=True, asks=names)
    records = FakeModel().observe(EXAMPLES[:1], IMAGES[:1], request)
    conditions = ["clean", "blank", *(asked_condition(name) for name in names)]
    assert [record.condition for record in records] == conditions
    (linked,) = link(records, condition="clean")
    verbal = [e for e in ESTIMATORS.values() if e.family == "verbal"]
    assert {f for e in verbal for f in e.needs} - {Feature.ANSWER} == FOLLOW_UPS
    for estimator in verbal:
        assert 0 <= estimator.uncertainty([linked])[0] <= 1
    only = FakeModel(PromptStyle(asks=("p_true",))).observe(EXAMPLES[:1], IMAGES[:1], request)
    assert [record.condition for record in only] == ["clean", "blank", "asked:p_true"]


def test_batches_do_not_matter_and_images_do() -> None:
    model = FakeModel()
    together = model.observe(EXAMPLES, IMAGES, REQUEST)
    alone = [
        r for e, i in zip(EXAMPLES, IMAGES, strict=True) for r in model.observe([e], [i], REQUEST)
    ]
    assert [r.answer.text for r in together] == [r.answer.text for r in alone]
    for one, many in zip(alone, together, strict=True):
        assert [s.text for s in one.samples] == [s.text for s in many.samples]
    other = model.observe(EXAMPLES[:1], [(Image.new("RGB", (4, 4), "green"),)], REQUEST)[0]
    assert not np.array_equal(other.answer.token_ids, together[0].answer.token_ids)


def test_it_fails_where_it_is_told_to() -> None:
    with pytest.raises(ModelError, match="'free' is set to fail"):
        FakeModel(fails_on=frozenset({"free"})).observe(EXAMPLES, IMAGES, REQUEST)


def test_given_answers_are_scored_where_there_are_any() -> None:
    clean = [r for r in FakeModel().observe(EXAMPLES, IMAGES, REQUEST) if r.condition == "clean"]
    ids = [np.asarray(r.answer.token_ids).tolist() for r in clean]
    records = FakeModel().observe(EXAMPLES, IMAGES, REQUEST, given=[ids[0], None, ids[2]])
    again = {r.example.id: r for r in records if r.condition == "clean"}
    assert not again["choice"].has(Feature.CLEAN_LOGPROBS)
    for before in (clean[0], clean[2]):
        read = again[before.example.id].array(Feature.CLEAN_LOGPROBS)
        np.testing.assert_allclose(read, before.answer.logprobs)
