"""The engine: what is observed together, what again, and what is dropped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from judges import HalfJudge

from sightline.core.errors import UnreadableError
from sightline.core.protocols import Request
from sightline.core.types import Example, Record
from sightline.models.fake import FakeModel
from sightline.serving.engine import Engine, Seen
from sightline.serving.errors import RequestError
from sightline.serving.trust import Judgement

CHEAP, DEAR = Request(), Request(n_samples=3)


@dataclass
class Watched:
    """The fake model, which remembers what it was asked."""

    calls: list[tuple[int, Request]] = field(default_factory=list)
    fake: FakeModel = field(default_factory=FakeModel)

    def fingerprint(self) -> Any:
        return self.fake.fingerprint()

    def observe(self, examples: Any, images: Any, request: Request) -> Any:
        self.calls.append((len(examples), request))
        time.sleep(0.05)
        return self.fake.observe(examples, images, request)


@dataclass(frozen=True)
class Cascade(HalfJudge):
    """Undecided about questions with a question mark until it sees samples."""

    @property
    def requests(self) -> tuple[Request, ...]:
        return CHEAP, DEAR

    def judge(self, records: Sequence[Record]) -> list[Judgement]:
        found = super().judge(records)
        return [
            replace(one, undecided="?" in record.example.question and not record.samples)
            for one, record in zip(found, records, strict=True)
        ]


def run(model: Any, judge: Any, questions: Sequence[str], **settings: Any) -> list[Seen]:
    engine = Engine(model, judge, **settings)

    async def ask() -> list[Seen]:
        engine.start()
        asked = [
            engine.observe(Example(q, q), (), judge.requests, deadline=time.monotonic() + 30)
            for q in questions
        ]
        return list(await asyncio.gather(*asked))

    try:
        return asyncio.run(ask())
    finally:
        engine.stop()


def test_dear_signals_are_observed_only_where_the_cheap_ones_are_undecided() -> None:
    model = Watched()
    seen = run(model, Cascade(), ["a", "b?", "c"])
    assert [len(one.record.samples) for one in seen] == [0, 3, 0]
    assert sum(count for count, request in model.calls if request == DEAR) == 1
    assert not any(one.judgement.undecided for one in seen)


def test_equal_questions_get_equal_answers_with_their_own_conditions() -> None:
    model = Watched()
    seen = run(model, HalfJudge(), ["same"] * 5)
    assert {one.record.answer.text for one in seen} == {seen[0].record.answer.text}
    assert len({one.judgement.confidence for one in seen}) == 1


def test_batches_are_as_large_as_allowed_and_in_order() -> None:
    model = Watched()
    run(model, HalfJudge(), [str(i) for i in range(20)], max_batch=6)
    counts = [count for count, _ in model.calls]
    assert sum(counts) == 20
    assert max(counts) == 6


def test_a_full_queue_refuses() -> None:
    model = Watched()
    with pytest.raises(RequestError) as error:
        run(model, HalfJudge(), [str(i) for i in range(20)], max_queue=4)
    assert (error.value.status, error.value.retry_after) == (503, 1)


def test_what_waits_when_the_engine_stops_is_told() -> None:
    engine = Engine(Watched(), HalfJudge())

    async def ask() -> None:
        waiting = asyncio.ensure_future(
            engine.observe(Example("a", "a"), (), (CHEAP,), deadline=time.monotonic() + 30)
        )
        await asyncio.sleep(0.05)
        engine.stop()
        with pytest.raises(RequestError, match="stopping"):
            await waiting

    asyncio.run(ask())


class Picky(Watched):
    """Reads no question with a ``#``, and says so before it reads any."""

    def observe(self, examples: Any, images: Any, request: Request) -> Any:
        bad = {row: "It holds '#'." for row, one in enumerate(examples) if "#" in one.question}
        self.calls.append((len(examples), request))
        if bad:
            raise UnreadableError("special_token", bad)
        return self.fake.observe(examples, images, request)


def test_questions_that_cannot_be_read_do_not_halve_their_batch() -> None:
    model = Picky()
    engine = Engine(model, HalfJudge())
    questions = [f"{i}#" if i in (3, 9) else str(i) for i in range(16)]

    async def ask() -> list[Any]:
        asked = [
            asyncio.ensure_future(
                engine.observe(Example(q, q), (), (CHEAP,), deadline=time.monotonic() + 30)
            )
            for q in questions
        ]
        await asyncio.sleep(0.05)
        engine.start()
        return list(await asyncio.gather(*asked, return_exceptions=True))

    try:
        found = asyncio.run(ask())
    finally:
        engine.stop()
    assert [count for count, _ in model.calls] == [16, 14]
    for question, one in zip(questions, found, strict=True):
        if "#" in question:
            assert isinstance(one, RequestError)
            assert (str(one), one.status, one.code) == ("It holds '#'.", 400, "special_token")
        else:
            assert one.record.example.question == question
