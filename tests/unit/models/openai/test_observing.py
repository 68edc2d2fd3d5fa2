"""A model observed through a faithful endpoint shows what it shows when it is observed here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from chat_servers import PLAIN, ChatServer, FakeChat
from PIL import Image

from sightline.core.condition_names import BLANK, CLEAN
from sightline.core.errors import EndpointError, UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Request, VisionLanguageModel
from sightline.core.types import Example, ImageRef
from sightline.data.prompts import PromptStyle, follow_up_text
from sightline.models.fake import FakeModel
from sightline.models.openai import EndpointSettings, load_endpoint
from sightline.models.openai.forecasting import forecast
from sightline.workflow.requests import asked_of_endpoint

ASKS = ("p_true", "self_check.2", "confidence_number", "confidence_scale")
REQUEST = Request(
    max_new_tokens=12, n_samples=11, temperature=0.7, options=True, blank=True, asks=ASKS, seed=3
)
EXAMPLES = [
    Example("free", "What is it?"),
    Example("choice", "Which one?", choices=("a ramp", "a grey cat", "none")),
    Example("text only", "Is water wet?"),
]
ONLY_LOCAL = {Feature.TOKEN_ENTROPY, Feature.TOP_TOKEN_IDS}


def pictures():
    rng = np.random.default_rng(0)
    made = [Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)) for _ in EXAMPLES]
    return [(made[0],), (made[1], made[2]), ()]


def endpoint(server, **settings):
    return load_endpoint(
        "m", EndpointSettings((server.url,), backoff_s=0.01, **settings), style=PLAIN
    )


@pytest.fixture(scope="module")
def chat():
    """The fake model behind the wire, which knows the prompts of the examples."""
    known = FakeChat(run_seed=REQUEST.seed, run_tokens=REQUEST.max_new_tokens)
    style = PromptStyle(short_instruction="")
    known.learn(EXAMPLES, style)
    local = FakeModel(style).observe(EXAMPLES, pictures(), REQUEST)
    for record in local:
        if record.condition == CLEAN:
            for name in ASKS:
                text = follow_up_text(name, record.example, record.answer.text, style)
                known.questions[text] = (record.example, name)
    return known


def same_generation(left, right):
    assert left.text == right.text
    assert left.finish_reason == right.finish_reason
    assert left.tokens == right.tokens
    assert left.answer_start == right.answer_start
    for name in ("logprobs", "token_ids"):
        one, other = getattr(left, name), getattr(right, name)
        assert (one is None) == (other is None), name
        if one is not None:
            np.testing.assert_array_equal(one, other)


def test_equals_the_model_observed_here(chat):
    local = FakeModel(PLAIN).observe(EXAMPLES, pictures(), REQUEST)
    with ChatServer(chat) as server:
        model = endpoint(server)
        assert isinstance(model, VisionLanguageModel)
        remote = model.observe(EXAMPLES, pictures(), REQUEST)
    assert [r.key for r in remote] == [r.key for r in local]
    for here, there in zip(local, remote, strict=True):
        same_generation(here.answer, there.answer)
        assert len(here.samples) == len(there.samples)
        for one, other in zip(here.samples, there.samples, strict=True):
            same_generation(one, other)
        assert set(there.features) == set(here.features) - ONLY_LOCAL
        for feature, values in there.features.items():
            np.testing.assert_allclose(
                values, here.array(feature), rtol=1e-9, err_msg=f"{here.key} {feature}"
            )


def test_does_not_depend_on_the_batch(chat):
    with ChatServer(chat) as server:
        model = endpoint(server)
        whole = model.observe(EXAMPLES, pictures(), REQUEST)
        parts = [
            record
            for example, own in zip(EXAMPLES, pictures(), strict=True)
            for record in model.observe([example], [own], REQUEST)
        ]
    assert [r.key for r in whole] == [r.key for r in parts]
    for one, other in zip(whole, parts, strict=True):
        same_generation(one.answer, other.answer)
        assert [s.text for s in one.samples] == [s.text for s in other.samples]


def test_without_seeds_and_n_samples_are_asked_one_by_one():
    chat = FakeChat(ignored=frozenset({"seed", "n"}))
    with ChatServer(chat) as server:
        model = endpoint(server)
        assert model.fingerprint()["samples"] == "1 a request, without a seed"
        server.requests.clear()
        (record,) = model.observe(
            [Example("e", "What?")], [()], Request(max_new_tokens=6, n_samples=5)
        )
        drawn = [b for b in server.bodies if b["temperature"] == 1.0]
    assert len(record.samples) == len(drawn) == 5
    assert not any("seed" in body or "n" in body for body in drawn)


def test_samples_after_the_temperature_keep_no_logprobs():
    with ChatServer(FakeChat(space="after")) as server:
        model = endpoint(server)
        assert model.fingerprint()["logprob_space"] == "after temperature"
        example = Example("e", "What?")
        warm = Request(max_new_tokens=6, n_samples=2, temperature=0.5)
        plain = Request(max_new_tokens=6, n_samples=2)
        (record,) = model.observe([example], [()], warm)
        assert record.has(Feature.LOGPROBS)
        assert not record.has(Feature.SAMPLE_LOGPROBS)
        assert "sample_logprobs" in model.unobservable(warm)
        (record,) = model.observe([example], [()], plain)
        assert record.has(Feature.SAMPLE_LOGPROBS)


def test_letters_are_read_off_the_likeliest_tokens_or_missing():
    from chat_servers import said, token

    def answer(body):
        top = {" A": -0.5, "A": -2.0, "B": -1.5} if body.get("top_logprobs") else {}
        if "C." in str(body["messages"]):
            return said("A", logprobs=[token(" A", -0.5, top)]), 200
        top |= {"D": -9999.0, "a": -3.0}
        return said("A", logprobs=[token(" A", -0.5, top)]), 200

    two = Example("two", "Which?", choices=("x", "y"))
    three = Example("three", "Which?", choices=("x", "y", "z"))
    with ChatServer(answer) as server:
        model = endpoint(server)
        records = model.observe([two, three], [(), ()], Request(options=True))
    first, second = records
    expected = [np.logaddexp(-0.5, -2.0), -1.5]
    np.testing.assert_allclose(first.array(Feature.LETTER_LOGPROBS), expected)
    assert not second.has(Feature.LETTER_LOGPROBS)  # C is not among those shown
    assert not first.has(Feature.OPTION_LOGPROBS)


def test_what_a_plain_server_does_not_show_is_missing_and_said():
    fields = {"logprobs", "seed", "n", "prompt_logprobs", "return_token_ids", "top_k"}
    with ChatServer(FakeChat(refused=frozenset(fields))) as server:
        model = endpoint(server)
        request = Request(n_samples=2, options=True, blank=True, layers=(0.5,))
        example = Example("e", "Which?", choices=("a ramp", "a cat"))
        clean, blank = model.observe([example], [pictures()[0]], request)
    assert clean.answer.logprobs is None
    assert clean.features == {}
    assert blank.condition == BLANK
    line = model.unobservable(request)
    for name in ("logprobs", "hidden", "option_logprobs", "letter_logprobs", "no seed"):
        assert name in line


def test_pictures_that_are_refused_are_a_usage_error():
    with ChatServer(FakeChat(refused=frozenset({"images"}))) as server:
        model = endpoint(server)
        with pytest.raises(UsageError, match="refuses pictures"):
            model.observe([EXAMPLES[0]], [pictures()[0]], Request())


def test_jpeg_is_sent_as_jpeg(chat):
    with ChatServer(chat) as server:
        model = endpoint(server, image_format="jpeg")
        server.requests.clear()
        model.observe([EXAMPLES[0]], [pictures()[0]], Request())
        part = server.bodies[0]["messages"][0]["content"][0]
    assert part["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert model.fingerprint()["image_format"] == "jpeg"


def test_another_model_behind_the_same_name_stops_the_run(chat):
    with ChatServer(chat) as server:
        model = endpoint(server)
        server.answer = lambda body: ({**chat(body)[0], "model": "m-2"}, 200)
        with pytest.raises(EndpointError, match="now answers as 'm-2', before as 'm'"):
            model.observe([EXAMPLES[2]], [()], Request())


def test_the_fingerprint_names_the_server_and_no_address_or_key(chat, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-secret-1")
    with ChatServer(chat) as server:
        model = endpoint(server, api_key_env="SOME_KEY")
        shown = repr(model) + repr(model.transport) + str(model.fingerprint())
        assert all(h["authorization"] == "Bearer sk-secret-1" for _, h, _ in server.requests)
    print_of = model.fingerprint()
    assert print_of["name"] == "m"
    assert print_of["owned_by"] == "tests"
    assert print_of["server"]["version"] == "1.2"
    assert print_of["generation_settings"] == "neutral"
    assert "sk-secret" not in shown
    assert str(server.port) not in str(print_of)


PLAINLY = Request(max_new_tokens=10, n_samples=0, top_k_logprobs=0)
SHOWN = [
    replace(example, images=tuple(ImageRef(f"{i}.png", "0" * 64) for i in range(len(own))))
    for example, own in zip(EXAMPLES, pictures(), strict=True)
]
ONE = SHOWN[1]  # two pictures, three options


def counted(chat, request):
    """Requests and pictures that the server got, and those that were forecast."""
    with ChatServer(chat) as server:
        model = endpoint(server)
        server.requests.clear()
        model.observe(SHOWN, pictures(), request)
        sent = [body for body, _, _ in server.requests]
    shown = sum(
        isinstance(turn["content"], list)
        and sum(part["type"] == "image_url" for part in turn["content"])
        for body in sent
        for turn in body["messages"]
    )
    return len(sent), shown, forecast(SHOWN, request, model.capabilities, PLAIN)


@pytest.mark.parametrize(
    ("request_", "exact"),
    [
        (PLAINLY, True),
        (replace(PLAINLY, n_samples=11), True),
        (replace(PLAINLY, blank=True), False),
        (replace(REQUEST, asks=()), False),
        (REQUEST, False),
    ],
)
def test_it_bounds_what_is_sent(chat, request_, exact):
    sent, shown, found = counted(chat, request_)
    assert sent <= found.requests <= 4 * sent
    assert shown <= found.pictures
    if exact:
        assert (sent, shown) == (found.requests, found.pictures)


def test_worked_by_hand(chat):
    with ChatServer(chat) as server:
        model = endpoint(server)
    capabilities = replace(model.capabilities, prompt_logprobs=True, n=True)

    def of(request, found=capabilities):
        made = forecast([ONE], request, found, PLAIN)
        return made.requests, made.pictures, made.tokens

    assert of(PLAINLY) == (1, 2, 10)
    assert of(replace(PLAINLY, n_samples=9)) == (3, 6, 100)
    assert of(replace(PLAINLY, n_samples=9), replace(capabilities, n=False)) == (10, 20, 100)
    assert of(replace(PLAINLY, blank=True)) == (3, 6, 21)  # its answer, and the clean one scored
    views = replace(PLAINLY, n_samples=9, conditions=("jpeg:3", "translate:4"))
    assert of(views) == (5, 10, 120)
    assert of(replace(views, condition_samples=2)) == (7, 14, 160)
    letters = 3 if PLAIN.asks_for_letters else 0
    scored = 3 + letters
    assert of(replace(PLAINLY, options=True)) == (1 + scored, 2 * (1 + scored), 10 + scored)
    line = asked_of_endpoint(SHOWN * 500, PLAINLY, model)
    assert line.startswith("1,500 questions: at most 1,500 requests with 1,500 pictures and 15,000")
