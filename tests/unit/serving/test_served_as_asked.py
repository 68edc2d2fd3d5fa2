"""A question has one confidence, whether it is asked on the command line or of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proxied_chats import TOKENS, choices, policy, questions, write_labelled
from running import data_url, picture, running, with_image

from sightline import api
from sightline.core.protocols import Request
from sightline.models.fake import FakeModel
from sightline.serving.judging import saved_judge


def test_a_confidence_read_from_samples_is_that_of_ask_to_the_bit(tmp_path: Path) -> None:
    asked = Request(max_new_tokens=TOKENS, n_samples=4)
    records = FakeModel().observe(questions(120), [()] * 120, asked)
    source = tmp_path / "questions.jsonl"
    write_labelled(source, records)
    api.collect("fake", source, tmp_path / "run", samples=4, max_new_tokens=TOKENS)
    saved = policy(tmp_path / "run", "own", "sample_agreement")
    shown = tmp_path / "shown.png"
    shown.write_bytes(picture())
    found = set()
    with running(judge=saved_judge(saved), has_policy=True) as server:
        for example in (*questions(8), *choices(4)):
            own = api.ask(
                shown, example.question, model="fake", policy=saved, choices=example.choices
            )
            messages = with_image(example.question, data_url(shown.read_bytes()))
            body: dict[str, Any] = {"messages": messages}
            if example.choices is not None:
                body["trust"] = {"choices": list(example.choices)}
            status, document, _ = server.call("/v1/chat/completions", body)
            assert status == 200, document
            assert own.decision is not None
            assert document["choices"][0]["trust"]["confidence"] == own.decision.confidence
            found.add(own.decision.confidence)
    assert len(found) > 2, "the samples tell questions apart"


def test_a_question_with_more_pictures_than_the_labelled_ones_has_no_confidence(
    tmp_path: Path,
) -> None:
    drawn = Request(max_new_tokens=TOKENS, n_samples=4)
    records = FakeModel().observe(questions(60), [()] * 60, drawn)
    source = tmp_path / "questions.jsonl"
    write_labelled(source, records)
    name = "sequence_probability"
    api.collect("fake", source, tmp_path / "run", estimators=(name,), max_new_tokens=TOKENS)
    saved = policy(tmp_path / "run", "own", name)
    shown = tmp_path / "shown.png"
    shown.write_bytes(picture())
    url = data_url(shown.read_bytes())
    said = "number of pictures is 2: the policy was fitted on questions with 0 to 1"
    own = api.ask([shown, shown], "Question 1?", model="fake", policy=saved).decision
    assert own is not None
    assert (own.confidence, own.accepted, own.reason) == (None, False, said)
    assert own.signals[name] == own.uncertainty
    with running(judge=saved_judge(saved), has_policy=True) as server:
        for urls in ((), (url,), (url, url)):
            asked = {"messages": with_image("Question 1?", *urls)}
            status, document, _ = server.call("/v1/chat/completions", asked)
            assert status == 200, document
            trust = document["choices"][0]["trust"]
            assert (trust["confidence"] is None) == (len(urls) == 2)
        assert (trust["abstain"], trust["reason"], trust["warnings"]) == (True, said, [said])
        assert trust["signals"][name] == trust["raw_score"]
        question = {"type": "predicate", "instructions": "Question 1?"}
        pictures = [{"type": "input_image", "image_url": url}] * 2
        content = [*pictures, {"type": "input_text", "text": "Two pictures."}]
        body = {"input": [{"role": "user", "content": content}], "questions": [question]}
        status, document, _ = server.call("/v1/decisions", body)
        assert status == 200, document
        assert document["answers"][0]["trust"]["reason"] == said
