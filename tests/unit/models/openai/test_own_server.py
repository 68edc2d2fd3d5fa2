"""Our own server as the endpoint: its model is observed as if it were here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_servers import PLAIN, ChatServer, FakeChat
from PIL import Image

from sightline import api
from sightline.core.errors import SettingsDifferError
from sightline.core.protocols import Request
from sightline.core.types import Example
from sightline.data.examples import load_dataset
from sightline.data.prompts import PromptStyle
from sightline.models import load_model
from sightline.models.fake import FakeModel
from sightline.models.openai import EndpointSettings, load_endpoint
from sightline.store.images import image_writer
from sightline.store.run import RunStore
from sightline.workflow.doctor import examine

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "serving"))

from running import running


def test_the_answer_and_its_logprobs_are_those_of_the_model():
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    examples = [Example("a", "What is it?"), Example("b", "Where is it?")]
    images = [(Image.fromarray(pixels),), ()]
    request = Request(max_new_tokens=10, n_samples=4)
    local = FakeModel(PLAIN).observe(examples, images, request)
    with running(FakeModel(PLAIN)) as server:
        where = EndpointSettings((f"http://127.0.0.1:{server.port}/v1",))
        model = load_endpoint("fake", where, style=PLAIN)
        remote = model.observe(examples, images, request)
    assert model.capabilities.logprobs
    assert model.capabilities.images == "seen"
    assert not model.capabilities.end_token
    for here, there in zip(local, remote, strict=True):
        assert there.answer.text == here.answer.text
        shown = there.answer.n_tokens
        assert here.answer.n_tokens - shown == (here.answer.finish_reason == "stop")
        assert there.answer.tokens == here.answer.tokens[:shown]
        np.testing.assert_array_equal(there.answer.logprobs, here.answer.logprobs[:shown])
        assert len(there.samples) == 4


def settings_of(server: Any) -> EndpointSettings:
    return EndpointSettings((f"http://127.0.0.1:{server.port}/v1",))


def test_a_collect_gives_the_answers_of_the_local_run(tmp_path):
    data = "scenes:test?n=300"
    examples = load_dataset(data, store_image=image_writer(tmp_path / "pictures")).examples
    chosen = [e.id for e in examples if e.choices is not None][:12]
    assert len(chosen) == 12
    chosen += [e.id for e in examples if e.choices is None][:24]
    lines: list[str] = []
    asked: dict[str, Any] = {
        "samples": 0, "max_new_tokens": 8, "layers": (), "blank": False, "sample_ids": chosen,
        "announce": lines.append,
    }  # fmt: skip
    api.collect("embedded:vlm", data, tmp_path / "local", **asked)
    with running(load_model("embedded:vlm")) as server:
        options = {"endpoint": settings_of(server)}
        api.collect("openai:fake", data, tmp_path / "remote", model_options=options, **asked)
    stores = [RunStore.open(tmp_path / name) for name in ("local", "remote")]
    local, remote = ({r.example.id: r for r in store.records()} for store in stores)
    assert set(local) == set(remote) == set(chosen)
    assert {i: r.answer.text for i, r in remote.items()} == {
        i: r.answer.text for i, r in local.items()
    }
    for one, record in remote.items():
        shown = len(record.answer.logprobs)
        np.testing.assert_allclose(
            record.answer.logprobs, local[one].answer.logprobs[:shown], atol=1e-4
        )
    assert sum("It words questions itself: they are sent in its own words" in x for x in lines) == 1
    here, there = (store.manifest.model for store in stores)
    texts = ("option", "short_instruction", "choice_instruction")
    for style in (there["prompt_style"], there["words_questions"]):
        assert [style[name] for name in texts] == [here["prompt_style"][name] for name in texts]


def test_instructions_that_were_given_are_sent_and_the_servers_own_is_said():
    request = Request(max_new_tokens=10)
    with running(FakeModel()) as server:
        for given, sent in (("", ""), ("In a word.", "\nIn a word.")):
            style = {"short_instruction": given}
            model = load_endpoint("fake", settings_of(server), style=style)
            assert model.style.short_instruction == given
            assert model.style.choice_instruction == PromptStyle().choice_instruction
            line = model.unobservable(request) or ""
            assert "it adds its own instruction ('Answer with a single word" in line
            (found,) = model.observe([Example("a", "What is it?")], [()], request)
            own = FakeModel().observe([Example("a", f"What is it?{sent}")], [()], request)
            assert found.answer.text == own[0].answer.text


def test_doctor_says_that_it_words_questions_itself():
    with running(FakeModel()) as server:
        lines = examine(load_endpoint("fake", settings_of(server))).endpoint
    assert lines[-1].startswith("It words questions itself: they are sent in its own words")


def test_follow_up_questions_which_it_would_word_as_questions_are_not_asked():
    with running(FakeModel()) as server:
        model = load_endpoint("fake", settings_of(server))
        assert not model.style.can_ask("p_true")
    with running(FakeModel(PLAIN)) as server:
        assert load_endpoint("fake", settings_of(server)).style.can_ask("p_true")


def test_a_server_that_words_otherwise_later_is_another(tmp_path):
    rows = [{"id": "a", "question": "What is it?", "answer": "yes"}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for style, differs in ((PromptStyle(), False), (PromptStyle(short_instruction="Say."), True)):
        with running(FakeModel(style)) as server:
            again = {
                "options": False, "blank": False, "samples": 0, "layers": (),
                "model_options": {"endpoint": settings_of(server)},
            }  # fmt: skip
            if not differs:
                api.collect("openai:fake", tmp_path / "q.jsonl", tmp_path / "run", **again)
                continue
            with pytest.raises(SettingsDifferError, match="short_instruction"):
                api.collect("openai:fake", tmp_path / "q.jsonl", tmp_path / "run", **again)


STYLE = PromptStyle().to_dict()


@pytest.mark.parametrize(
    "entry",
    [
        {"words_questions": False, "prompt_style": STYLE},
        {"words_questions": "true", "prompt_style": STYLE},
        {"words_questions": True},
        {"words_questions": True, "prompt_style": [STYLE]},
        {"words_questions": True, "prompt_style": {**STYLE, "option": 3}},
        {"words_questions": True, "prompt_style": {**STYLE, "option": "{letter}."}},
        {"words_questions": True, "prompt_style": {**STYLE, "short_instruction": "x" * 5000}},
    ],
)
def test_what_does_not_say_how_it_words_questions_is_asked_as_any_other(entry):
    with ChatServer(FakeChat()) as server:
        server.models = [{"id": "m", "owned_by": "tests", **entry}]
        model = load_endpoint("m", EndpointSettings((server.url,)))
    assert "words_questions" not in model.fingerprint()
    assert model.style == PromptStyle()
    assert "words" not in (model.unobservable(Request()) or "")
