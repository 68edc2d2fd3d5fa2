"""What a model replies about its own answer equals the model asked the plain way.

The plain way is the rendered follow-up question, unpadded and alone: the library's own
``generate``, and full forward passes without a cache.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_transformers_exactness import (
    END,
    EXAMPLES,
    IMAGES,
    TOLERANCE,
    assert_forced,
    chosen,
    generated,
    plain_inputs,
)
from tiny_models import Tiny, example

from sightline.core.condition_names import asked_condition
from sightline.core.features import FIXED_REPLIES, Feature
from sightline.core.protocols import Request
from sightline.core.types import Record
from sightline.data.prompt_forms import FOLLOW_UP_FORMS, follow_up_of
from sightline.data.prompts import PromptStyle, follow_up_text
from sightline.models.transformers import TransformersModel

ASKS = ("p_true", "self_check.2", "confidence_scale", "confidence_number")
REQUEST = Request(max_new_tokens=6, n_samples=1, blank=True, top_k_logprobs=0, asks=ASKS)
Records = dict[tuple[str, str], Record]


def observed(model: TransformersModel, rows: slice = slice(None)) -> Records:
    records = model.observe(EXAMPLES[rows], IMAGES[rows], REQUEST)
    return {tuple(record.key): record for record in records}


@pytest.fixture(scope="module")
def batched(tiny: Tiny) -> Records:
    return observed(tiny.observer())


def test_every_question_is_asked_once_behind_every_answer(batched: Records) -> None:
    conditions = ("clean", "blank", *(asked_condition(name) for name in ASKS))
    assert list(batched) == [(e.id, condition) for e in EXAMPLES for condition in conditions]


@pytest.mark.parametrize("name", ASKS)
def test_replies_equal_generate_on_the_rendered_prompt(
    tiny: Tiny, batched: Records, name: str
) -> None:
    limit = FOLLOW_UP_FORMS[follow_up_of(name)[0]].max_new_tokens
    compared = 0
    for asked, images in zip(EXAMPLES, IMAGES, strict=True):
        answer = batched[asked.id, "clean"].answer.text
        inputs = plain_inputs(tiny, follow_up_text(name, asked, answer, PromptStyle()), images)
        output = generated(tiny, inputs, limit)
        reference = output.sequences[0].tolist()[-len(output.logits) :]
        own = batched[asked.id, asked_condition(name)].answer
        assert_forced(tiny, inputs, own, own.logprobs)
        for step, logits in enumerate(output.logits):
            best = logits[0].float().log_softmax(-1).topk(2)
            if best.values[0] - best.values[1] <= TOLERANCE:
                break
            assert own.token_ids[step] == reference[step]
            compared += 1
        else:
            assert len(own.token_ids) == len(reference)
            assert own.finish_reason == ("stop" if reference[-1] in (END, 2) else "length")
    assert compared >= len(EXAMPLES)


@pytest.mark.parametrize("name", ASKS)
def test_fixed_replies_equal_scoring_each_spelling_by_itself(
    tiny: Tiny, batched: Records, name: str
) -> None:
    lead = " " if tiny.name in ("llava", "instructblip") else ""
    replies = FIXED_REPLIES.get(follow_up_of(name)[0])
    for asked, images in zip(EXAMPLES[:2], IMAGES[:2], strict=True):
        record = batched[asked.id, asked_condition(name)]
        assert record.has(Feature.REPLY_LOGPROBS) == (replies is not None)
        answer = batched[asked.id, "clean"].answer.text
        inputs = plain_inputs(tiny, follow_up_text(name, asked, answer, PromptStyle()), images)
        for at, reply in enumerate(replies or ()):
            total = 0.0
            for text in (reply, reply.capitalize(), reply.upper()):
                ids = tiny.processor.tokenizer(lead + text, add_special_tokens=False)["input_ids"]
                total += np.exp(chosen(tiny, inputs, ids).sum())
            logprob = record.array(Feature.REPLY_LOGPROBS)[at]
            assert logprob == pytest.approx(np.log(total), abs=TOLERANCE * len(ids))


def test_replies_do_not_depend_on_the_batch(tiny: Tiny, batched: Records) -> None:
    model = tiny.observer()
    for i in range(len(EXAMPLES)):
        for key, record in observed(model, slice(i, i + 1)).items():
            other = batched[key]
            np.testing.assert_array_equal(record.answer.token_ids, other.answer.token_ids)
            np.testing.assert_allclose(
                record.answer.logprobs, other.answer.logprobs, atol=TOLERANCE
            )
            if record.has(Feature.REPLY_LOGPROBS):
                one, many = (r.array(Feature.REPLY_LOGPROBS) for r in (record, other))
                np.testing.assert_allclose(one, many, atol=10 * TOLERANCE)


def test_asking_changes_nothing_else(tiny: Tiny, batched: Records) -> None:
    plain = Request(max_new_tokens=6, n_samples=1, blank=True, top_k_logprobs=0)
    for record in tiny.observer().observe(EXAMPLES, IMAGES, plain):
        other = batched[tuple(record.key)]
        np.testing.assert_array_equal(record.answer.token_ids, other.answer.token_ids)
        np.testing.assert_array_equal(record.answer.logprobs, other.answer.logprobs)


def test_the_picture_is_in_view(tiny: Tiny) -> None:
    asker = tiny.observer()._asker
    answers = ["red"] * len(EXAMPLES)
    with torch.inference_mode():
        seen, other = (
            asker.ask(["p_true"], EXAMPLES, images, answers) for images in (IMAGES, IMAGES[::-1])
        )
    moved = [
        np.abs(one.array(Feature.REPLY_LOGPROBS) - two.array(Feature.REPLY_LOGPROBS)).max()
        for (one,), (two,) in zip(seen, other, strict=True)
    ]
    assert max(moved) > 0.05


def test_a_question_without_a_picture_is_asked_too(tiny: Tiny) -> None:
    if tiny.name in ("instructblip", "paligemma"):
        pytest.skip("this model reads at least one image")
    bare = example("bare", "What is two and two?", images=0)
    records = tiny.observer().observe([bare], [()], REQUEST)
    assert [r.condition for r in records] == ["clean", *(asked_condition(n) for n in ASKS)]
