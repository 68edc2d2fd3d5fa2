"""A local model's answers: how they are drawn, counted and named, and what of a request is read."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from judges import HalfJudge
from PIL import Image
from running import Running, data_url, picture, running, with_image

from sightline.core.protocols import Request
from sightline.core.types import Example
from sightline.models.fake import FakeModel
from sightline.serving.wire import dropped_fields, read_chat, read_decisions

CHAT = "/v1/chat/completions"


def texts(server: Running, **fields: Any) -> list[str]:
    status, document, _ = server.chat(**fields)
    assert status == 200, document
    return [choice["message"]["content"] for choice in document["choices"]]


def test_sampling_is_random_without_a_seed_and_repeatable_with_its_own() -> None:
    with running(judge=HalfJudge(), has_policy=True) as server:
        drawn = [server.chat(temperature=1.0, n=3)[1]["choices"] for _ in range(4)]
        said = [tuple(choice["message"]["content"] for choice in one) for one in drawn]
        assert len(set(said)) == 4
        seeds = [{choice["trust"]["seed"] for choice in one} for one in drawn]
        assert len(set().union(*seeds)) == 4
        for one, (seed,) in zip(said, seeds, strict=True):
            assert 0 <= seed < 2**53
            assert tuple(texts(server, temperature=1.0, n=3, seed=seed)) == one
        assert texts(server, temperature=1.0, seed=-5) == texts(server, temperature=1.0, seed=-5)
        assert texts(server, temperature=1.0, seed=1, n=8) != texts(
            server, temperature=1.0, seed=2, n=8
        )


def test_greedy_answers_have_no_seed() -> None:
    with running() as server:
        plain = server.chat()[1]["choices"][0]
        for fields in ({"seed": 1}, {"seed": 2, "temperature": 0}):
            choice = server.chat(**fields)[1]["choices"][0]
            assert choice["message"] == plain["message"]
            assert "seed" not in choice["trust"]


class Held(FakeModel):
    """Counts its batches; the first waits until it is let go."""

    sizes: list[int] = []  # noqa: RUF012
    go = threading.Event()

    def observe(self, examples: Any, images: Any, request: Any, **more: Any) -> Any:
        self.sizes.append(len(examples))
        if len(self.sizes) == 1:
            self.go.wait(30)
        return super().observe(examples, images, request, **more)


def awaited(holds: Callable[[], bool]) -> None:
    """Waits until something holds; the test fails where it does not within half a minute."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold within 30 s"
        time.sleep(0.005)


def test_questions_of_different_seeds_are_observed_together() -> None:
    with running(Held()) as server, ThreadPoolExecutor(9) as pool:
        first = pool.submit(server.chat)
        awaited(lambda: bool(Held.sizes))
        fields: list[dict[str, Any]] = [{"seed": i} for i in range(4)] + [{}] * 4
        asked = [pool.submit(server.chat, temperature=0.7, **one) for one in fields]
        awaited(lambda: server.server.backend.gauges()["engine_queue"] == 8)
        Held.go.set()
        assert first.result()[0] == 200
        assert all(one.result()[0] == 200 for one in asked)
        assert Held.sizes == [1, 8]


@pytest.mark.parametrize("name", ["gpt-4o", "fake ", "", "x" * 500, "\x1b[2J\n"])
def test_another_models_name_is_not_found(name: str) -> None:
    with running() as server:
        for stream in (False, True):
            status, document, _ = server.chat(model=name, stream=stream)
            error = document["error"]
            assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
            assert "'fake' is required" in error["message"]
            assert "\x1b" not in error["message"]
        questions = [{"type": "predicate", "instructions": "Is it?"}]
        asked = {"input": "x", "questions": questions, "model": name}
        assert server.call("/v1/decisions", asked)[0] == 404
        (listed,) = server.call("/v1/models")[1]["data"]
        assert server.chat(model=listed["id"])[0] == 200
        assert server.call(CHAT, {"messages": [{"role": "user", "content": "x"}]})[0] == 200


def usage_of(server: Running, messages: Any, **fields: Any) -> dict[str, int]:
    status, document, _ = server.call(CHAT, {"messages": messages, **fields})
    assert status == 200, document
    usage = document["usage"]
    assert all(type(value) is int for value in usage.values())
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    return dict(usage)


def test_a_picture_in_system_text_is_refused_and_not_left_out() -> None:
    with running() as server:
        (shown,) = with_image("It is red.", data_url(picture()))
        user = {"role": "user", "content": "What is it?"}
        for role in ("system", "developer"):
            body = {"messages": [{**shown, "role": role}, user]}
            status, document, _ = server.call(CHAT, body)
            assert (status, document["error"]["code"]) == (400, "unsupported_conversation")
            assert "read from the user's message alone" in document["error"]["message"]


def test_usage_counts_the_prompt_with_its_pictures() -> None:
    from sightline.data.prompts import user_text
    from sightline.models.loading import load_model

    model = load_model("embedded:vlm")
    parts = model.parts
    files = [picture(colour, size=(96, 96)) for colour in ("red", "blue")]
    pixels = Image.new("RGB", (96, 96))
    with running(model) as server:
        for question in ("What colour is the picture?", "Is it red?"):
            text = user_text(Example("x", question), parts.style)
            for count in (0, 1, 2):
                prompt = parts.inputs.prompt(text, count, where="x")
                ids = parts.inputs.tensors([prompt], [(pixels,) * count])["input_ids"]
                assert bool((ids == parts.image_token_id).any()) is (count > 0)
                messages = with_image(question, *map(data_url, files[:count]))
                assert usage_of(server, messages)["prompt_tokens"] == ids.shape[1]
        sampled = usage_of(server, messages, temperature=1.0, n=3)
        assert sampled["prompt_tokens"] == ids.shape[1]  # once, however many answers
        assert sampled["completion_tokens"] >= 3


def test_counts_are_those_of_single_questions_whatever_they_are_observed_with() -> None:
    from sightline.models.loading import load_model

    model = load_model("embedded:vlm")
    image, other = Image.new("RGB", (96, 96), "red"), Image.new("RGB", (96, 96), "blue")
    asked = [
        ("What colour is it?", (image,)),
        ("Is there a large red circle to the left of the square?", (image,)),
        ("Is it red?", (other,)),
        ("How many circles are there?", ()),
    ]
    examples = [Example(str(i), question) for i, (question, _) in enumerate(asked)]
    images = [own for _, own in asked]
    together: list[int] = []
    model.observe(examples, images, Request(), counted=together.extend)
    alone: list[int] = []
    for example, own in zip(examples, images, strict=True):
        model.observe([example], [own], Request(), counted=alone.extend)
    assert together == alone
    assert len(set(alone)) == 4


def test_usage_of_decisions_is_of_all_their_questions() -> None:
    openai = pytest.importorskip("openai", reason="the dev extra is not installed")
    with running(judge=HalfJudge(), has_policy=True) as server:
        base = f"http://127.0.0.1:{server.port}/v1"
        client = openai.OpenAI(base_url=base, api_key="none", max_retries=0)
        questions = [{"type": "predicate", "instructions": f"Is it {i}?"} for i in range(3)]
        one, all_three = (
            client.decisions.create(model="fake", input="Look.", questions=part).usage
            for part in (questions[:1], questions)
        )
        assert all_three.input_tokens == 3 * one.input_tokens > 0
        assert all_three.output_tokens > one.output_tokens > 0
        assert all_three.total_tokens == all_three.input_tokens + all_three.output_tokens
        assert all_three.input_tokens_details.cached_tokens == 0


def test_a_model_that_does_not_count_has_no_usage() -> None:
    class Silent:
        def fingerprint(self) -> Any:
            return FakeModel().fingerprint()

        def observe(self, examples: Any, images: Any, request: Any) -> Any:
            return FakeModel().observe(examples, images, request)

    with running(Silent()) as server:
        status, document, _ = server.chat()
        assert (status, document["usage"]) == (200, None)


def test_top_logprobs_of_samples_are_refused_in_words() -> None:
    class Spelling(FakeModel):
        def token_texts(self, ids: Any) -> list[str]:
            return [str(i) for i in ids]

    with running(Spelling()) as server:
        asked = {"logprobs": True, "top_logprobs": 2}
        greedy = server.chat(**asked)[1]["choices"][0]
        assert all(len(one["top_logprobs"]) == 2 for one in greedy["logprobs"]["content"])
        assert not any("top_logprobs" in one for one in greedy["trust"]["warnings"])
        sampled = server.chat(temperature=1.0, **asked)[1]["choices"][0]
        assert sampled["logprobs"]["content"]
        assert any("top_logprobs is not used" in one for one in sampled["trust"]["warnings"])


PARTS = [
    {"type": "text", "text": "What is it?", "cache_control": {}},
    {"type": "image_url", "image_url": {"url": data_url(picture()), "file_path": "/etc"}},
]
NESTED = {
    "messages": [{"role": "user", "content": PARTS, "annotations": []}],
    "stream_options": {"include_obfuscation": True},
    "chat_template": "{{ x }}",
    "kv_transfer_params": {"path": "/x"},
}
UNREAD = {
    "chat_template",
    "kv_transfer_params",
    "messages.0.annotations",
    "messages.0.content.0.cache_control",
    "messages.0.content.1.image_url.file_path",
    "stream_options.include_obfuscation",
}


def test_36_unknown_fields_at_any_depth_are_dropped_in_words_or_refused() -> None:
    with running() as server:
        status, document, _ = server.call(CHAT, NESTED)
        assert status == 200
        (said,) = [
            one
            for one in document["choices"][0]["trust"]["warnings"]
            if one.startswith("not used, dropped: ")
        ]
        assert set(said.partition(": ")[2].split(", ")) == UNREAD
    with running(strict=True) as server:
        for name in UNREAD:
            top = name.partition(".")[0]
            asked = {"messages": [{"role": "user", "content": "x"}], top: NESTED[top]}
            status, document, _ = server.call(CHAT, asked)
            assert (status, document["error"]["code"]) == (400, "unknown_field")
            assert document["error"]["param"] in UNREAD
        assert server.works()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "trust", [{"abstain_mod": "refuse"}, {"abstain_mode": "flag", "Explain": 1}, {"": {}}]
)
def test_36_a_typo_within_trust_never_fails_open(trust: dict[str, Any], strict: bool) -> None:
    with running(judge=HalfJudge(0.99), has_policy=True, strict=strict) as server:
        typo = next(name for name in trust if name != "abstain_mode")
        for path, body in (
            (CHAT, {"messages": [{"role": "user", "content": "x"}]}),
            (
                "/v1/decisions",
                {"input": "x", "questions": [{"type": "predicate", "instructions": "Is it?"}]},
            ),
        ):
            status, document, _ = server.call(path, {**body, "trust": trust})
            error = document["error"]
            assert (status, error["code"]) == (400, "unknown_field")
            assert error["param"] == f"trust.{typo}"
            assert "abstain_mode, choices, explain, category" in error["message"]


def test_36_what_is_read_is_not_said_to_be_dropped() -> None:
    from sightline.serving.limits import Limits

    chat = {
        "messages": with_image("What?", data_url(picture())),
        "stop": ["a"],
        "stream_options": {"include_usage": True},
        "trust": {"choices": ["a", "b"], "category": "c"},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    }
    assert dropped_fields(chat, read_chat(chat, Limits(), strict=True)) == ()
    decisions = {
        "input": [
            {"role": "user", "content": [{"type": "input_json", "data": {"any": {"thing": 1}}}]}
        ],
        "questions": [
            {"type": "choice", "instructions": "x", "choices": [{"value": "a"}, {"value": True}]},
            {"type": "score", "instructions": "x", "levels": [{"label": "a"}, {"label": "b"}]},
        ],
    }
    assert dropped_fields(decisions, read_decisions(decisions, Limits(), strict=True)) == ()


@pytest.mark.parametrize(
    ("correct", "said"),
    [
        (2, "less than or equal to 1"),
        (-0.5, "greater than or equal to 0"),
        ("yes", "a valid boolean or input should be a valid number"),
    ],
)
def test_what_a_grade_may_be_is_said(correct: Any, said: str, tmp_path: Any) -> None:
    from sightline.serving.feedback import FeedbackStore

    store = FeedbackStore(tmp_path, "half@sha256:0")
    with running(judge=HalfJudge(), has_policy=True, feedback=store) as server:
        asked = {"receipt": "x", "correct": correct}
        status, document, _ = server.call("/v1/feedback", json.dumps(asked).encode())
        assert (status, document["error"]["param"]) == (400, "correct")
        assert said in document["error"]["message"]
