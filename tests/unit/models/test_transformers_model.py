"""The observer's settings, its errors, and what it keeps of hidden states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import Tiny, example, picture

from sightline.core.errors import (
    ModelError,
    OutOfMemoryError,
    SightlineError,
    UnreadableError,
    UsageError,
)
from sightline.core.features import Feature
from sightline.core.protocols import Request, VisionLanguageModel
from sightline.data.prompts import PromptStyle
from sightline.models import verification
from sightline.models.kept import compact
from sightline.models.transformers import TransformersModel

ASKED = [example("a", "What is it?")]
IMAGES = [(picture(1, (30, 40)),)]


def test_it_offers_what_the_protocol_asks(tiny_llava: Tiny) -> None:
    model: VisionLanguageModel = tiny_llava.observer()
    assert model.observe([], [], Request()) == []
    assert model.fingerprint()["decoding"] == "shared prefill"


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"max_new_tokens": 0}, "at least 1"),
        ({"n_samples": -1}, "0 or more"),
        ({"temperature": 0.0}, "above 0"),
        ({"top_p": 0.0}, "above 0 and at most 1"),
        ({"top_p": 1.5}, "above 0 and at most 1"),
        ({"top_k_logprobs": -1}, "0 or more"),
        ({"layers": (4,)}, "0 to 3"),
        ({"layers": (1.5,)}, "0.0 to 1.0"),
        ({"layers": (-1,)}, "0 to 3"),
    ],
)
def test_impossible_requests_are_usage_errors(tiny_llava: Tiny, settings: Any, rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        tiny_llava.observer().observe(ASKED, IMAGES, Request(**settings))


def test_fractions_are_of_the_depth_and_integers_are_indices(tiny_llava: Tiny) -> None:
    model = tiny_llava.observer()
    assert model.layers(Request(layers=(0.0, 0.25, 0.5, 1.0, 1, 0))) == (0, 1, 2, 3)


def test_top_k_never_exceeds_the_vocabulary(tiny_llava: Tiny) -> None:
    request = Request(max_new_tokens=2, top_k_logprobs=1000)
    (record,) = tiny_llava.observer().observe(ASKED, IMAGES, request)
    top = record.array(Feature.TOP_LOGPROBS)
    assert top.shape[1] == 320
    np.testing.assert_allclose(np.exp(top).sum(1), 1, atol=1e-5)


def test_sampling_settings_of_the_model_are_not_applied(tiny_llava: Tiny) -> None:
    settings = tiny_llava.model.generation_config
    assert settings.repetition_penalty == 1.7
    assert settings.suppress_tokens
    (record,) = tiny_llava.observer().observe(ASKED, IMAGES, Request(max_new_tokens=8))
    np.testing.assert_array_equal(
        record.array(Feature.TOP_TOKEN_IDS)[:, 0], record.answer.token_ids
    )
    np.testing.assert_allclose(
        record.array(Feature.TOP_LOGPROBS)[:, 0], record.answer.logprobs, atol=1e-6
    )


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            OutOfMemoryError,
            "memory ran out",
        ),
        (torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried 2 GiB"), OutOfMemoryError, "ran"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"), OutOfMemoryError, "ran out"),
        (RuntimeError("shape\n mismatch"), ModelError, "RuntimeError: shape mismatch; the model"),
        (ValueError("image tokens do not match"), ModelError, "refused its inputs"),
    ],
)
def test_failures_of_the_model_are_one_line_errors(
    tiny_llava: Tiny, raised: Exception, expected: type, text: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise raised

    handle = tiny_llava.model.model.language_model.layers[1].register_forward_pre_hook(fail)
    try:
        with pytest.raises(ModelError, match=text) as caught:
            tiny_llava.observer().observe(ASKED, IMAGES, Request(max_new_tokens=2))
    finally:
        handle.remove()
    assert type(caught.value) is expected
    assert "\n" not in str(caught.value)


def test_a_failed_device_blames_no_example(tiny_llava: Tiny) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered\n")

    handle = tiny_llava.model.model.language_model.layers[1].register_forward_pre_hook(fail)
    try:
        with pytest.raises(SightlineError, match=r"The device failed .CUDA error") as caught:
            tiny_llava.observer().observe(ASKED, IMAGES, Request(max_new_tokens=2))
    finally:
        handle.remove()
    assert not isinstance(caught.value, ModelError)


def test_memory_that_runs_out_at_loading_is_no_slow_decoding(
    tiny_llava: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "TESTED", frozenset())

    def fail(*_: Any, **__: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    handle = tiny_llava.model.model.language_model.layers[1].register_forward_pre_hook(fail)
    try:
        with pytest.raises(UsageError, match="Memory ran out when llava was tried"):
            tiny_llava.observer()
    finally:
        handle.remove()


def test_a_question_with_an_image_marker_fails_by_its_text(tiny_llava: Tiny) -> None:
    asked = [*ASKED, example("bad", "Is <image> nice?")]
    model, failed = tiny_llava.observer(), "The question 'Is <image> nice\\?' holds '<image>'"
    with pytest.raises(UnreadableError, match=failed) as error:
        model.observe(asked, [*IMAGES, *IMAGES], Request(max_new_tokens=2))
    assert list(error.value.reasons) == [len(ASKED)]
    assert error.value.code == "special_token"


@pytest.mark.parametrize("rows", [1, 3])
def test_a_prompt_longer_than_the_model_reads_is_refused(tiny_llava: Tiny, rows: int) -> None:
    model = tiny_llava.observer()
    limit = tiny_llava.model.config.get_text_config().max_position_embeddings
    long = [example(f"long-{row}", "What is it? " * limit) for row in range(rows)]
    with pytest.raises(ModelError, match=rf"takes \d+ tokens.* fewer than {limit}. Shorten"):
        model.observe(long, IMAGES * rows, Request())


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("spare", [12, -12])
def test_prompts_that_are_too_long_are_named_before_any_is_read(
    tiny_llava: Tiny, spare: int, shared: bool
) -> None:
    """Whether the text alone is too long, or only with its picture."""
    model = tiny_llava.observer()
    limit = tiny_llava.model.config.get_text_config().max_position_embeddings
    word = tiny_llava.processor.tokenizer("it it it")["input_ids"]
    asked = [example("a", "What is it?"), example("b", "it " * (limit - spare)), example("c", "it")]
    assert len(word) >= 3
    images = IMAGES * 3 if shared else [(picture(seed, (30, 40)),) for seed in range(3)]
    reads: list[object] = []
    hook = tiny_llava.model.register_forward_pre_hook(lambda *_: reads.append(None))
    try:
        with pytest.raises(UnreadableError, match=r"takes \d+ tokens") as error:
            model.observe(asked, images, Request())
    finally:
        hook.remove()
    assert list(error.value.reasons) == [1]
    assert error.value.code == "context_length_exceeded"
    assert reads == []


def test_states_are_half_precision_unless_they_do_not_fit() -> None:
    assert compact(torch.tensor([[1.0, -2.5]])).dtype == np.float16
    large = compact(torch.tensor([[1.0, -7e4]]))
    assert large.dtype == np.float32
    assert large[0, 1] == -7e4


def test_a_layers_states_do_not_depend_on_which_others_are_kept(tiny_llava: Tiny) -> None:
    model = tiny_llava.observer()
    (every,) = model.observe(ASKED, IMAGES, Request(max_new_tokens=3, layers=(0.3, 0.6, 1.0)))
    (one,) = model.observe(ASKED, IMAGES, Request(max_new_tokens=3, layers=(2,)))
    assert (every.layers, one.layers) == ((1, 2, 3), (2,))
    np.testing.assert_array_equal(one.answer.logprobs, every.answer.logprobs)
    for feature in (Feature.HIDDEN, Feature.PROMPT_HIDDEN, Feature.IMAGE_HIDDEN):
        np.testing.assert_array_equal(one.array(feature), every.array(feature)[1:2])


def test_a_layer_beyond_half_precision_leaves_the_digits_of_the_others_alone() -> None:
    third, large = [1 / 3, -2.5], [1 / 3, 7e4]
    both = compact(torch.tensor([third, large]))
    np.testing.assert_array_equal(both[:1], compact(torch.tensor([third])))
    np.testing.assert_array_equal(both[1:], np.array([large], dtype=np.float32))
    assert not both.flags.writeable


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_states_that_are_not_finite_are_an_error(value: float) -> None:
    with pytest.raises(ModelError, match="hidden states hold NaN or infinity"):
        compact(torch.tensor([[1.0, value]]))


def test_letters_are_scored_only_where_the_prompt_asks_for_one(tiny_llava: Tiny) -> None:
    asked = [example("a", "Which?", choices=("cat", "dog"))]
    letters = {Feature.LETTER_LOGPROBS, Feature.BLANK_LETTER_LOGPROBS}
    options = {Feature.OPTION_LOGPROBS, Feature.BLANK_OPTION_LOGPROBS, Feature.OPTION_LENGTHS}
    request = Request(max_new_tokens=2, options=True, blank=True)
    for instruction, expected in (
        (PromptStyle().choice_instruction, letters | options),
        ("Answer with the option's text.", options),
    ):
        model = TransformersModel(
            tiny_llava.model,
            tiny_llava.processor,
            identity={},
            style=PromptStyle(choice_instruction=instruction),
        )
        record = model.observe(asked, IMAGES, request)[0]
        assert record.features.keys() & (letters | options) == expected


def test_identical_examples_get_identical_records(tiny_llava: Tiny) -> None:
    request = Request(max_new_tokens=6, n_samples=2)
    one, two = tiny_llava.observer().observe(ASKED * 2, IMAGES * 2, request)
    assert [s.text for s in one.samples] == [s.text for s in two.samples]
    np.testing.assert_allclose(one.answer.logprobs, two.answer.logprobs, atol=1e-5)


def test_given_answers_are_scored_behind_the_same_pass(tiny_llava: Tiny) -> None:
    """Its own greedy answer gets its own probabilities, in any batch; None gets none."""
    model = tiny_llava.observer()
    asked = [example("a", "What is it?"), example("b", "And where would that be, if anywhere?")]
    images = [(picture(1, (30, 40)),), (picture(2, (40, 30)),)]
    request = Request(max_new_tokens=5)
    first = model.observe(asked, images, request)
    own = [np.asarray(r.answer.token_ids).tolist() for r in first]
    again = model.observe(asked, images, request, given=own)
    for record in again:
        assert record.answer.logprobs is not None
        np.testing.assert_allclose(
            record.array(Feature.CLEAN_LOGPROBS), record.answer.logprobs, atol=1e-4
        )
    crossed = model.observe(asked, images, request, given=[own[1], None])
    (alone,) = model.observe(asked[:1], images[:1], request, given=[own[1]])
    assert not crossed[1].has(Feature.CLEAN_LOGPROBS)
    assert crossed[0].array(Feature.CLEAN_LOGPROBS).shape == (len(own[1]),)
    np.testing.assert_allclose(
        crossed[0].array(Feature.CLEAN_LOGPROBS),
        alone.array(Feature.CLEAN_LOGPROBS),
        atol=1e-4,
    )
