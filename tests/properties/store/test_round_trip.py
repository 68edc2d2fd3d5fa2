"""Whatever can be a record comes back from the store to the last bit."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_plans import assert_same_record, compared_bytes, make_manifest

from sightline.core.features import ARRAY_AXES, INTEGER_FEATURES, LAYERED, Feature
from sightline.core.types import (
    Example,
    Generation,
    ImageRef,
    Key,
    Quarantined,
    Record,
    Refused,
)
from sightline.store.listing import describe_run
from sightline.store.run import RunStore

# The run-time type checker draws from `random` when it looks into a container.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")

UNICODE = st.text(st.characters(codec="utf-8"), max_size=8)
IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
SCALARS = st.one_of(
    UNICODE, st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)
)
LOGPROBS = st.floats(max_value=0.0, allow_infinity=False, allow_nan=False)
FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "int32", "int64", "uint8", "uint16", "uint64")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield path
    shutil.rmtree(path)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    return Example(
        id=draw(IDS),
        question=draw(UNICODE),
        images=tuple(ImageRef(path, "0" * 64) for path in draw(st.lists(UNICODE, max_size=2))),
        choices=draw(st.none() | st.lists(UNICODE, min_size=2, max_size=4).map(tuple)),
        references=tuple(draw(st.lists(UNICODE, max_size=3))),
        group=draw(UNICODE),
        question_type=draw(st.none() | UNICODE),
        meta=draw(st.dictionaries(UNICODE, SCALARS, max_size=3)),
    )


@st.composite
def generations(draw: st.DrawFn) -> Generation:
    count = draw(st.integers(1, 4))
    per_token = {
        "token_ids": st.lists(st.integers(-(2**31), 2**31 - 1), min_size=count, max_size=count).map(
            np.array
        ),
        "tokens": st.lists(UNICODE, min_size=count, max_size=count).map(tuple),
        "logprobs": st.lists(LOGPROBS, min_size=count, max_size=count).map(np.array),
    }
    observed = {name: draw(st.none() | values) for name, values in per_token.items()}
    known = any(value is not None for value in observed.values())
    return Generation(
        text=draw(UNICODE),
        finish_reason=draw(st.sampled_from(["stop", "length", "unknown"])),
        reasoning=draw(st.none() | UNICODE),
        answer_start=draw(st.integers(0, count)) if known else 0,
        **observed,
    )


@st.composite
def records(draw: st.DrawFn, example: Example, condition: str) -> Record:
    greedy = draw(st.none() | generations())
    samples = tuple(draw(st.lists(generations(), max_size=2)))
    bare = Record(example, condition, greedy=greedy, samples=samples)
    layers = tuple(draw(st.lists(st.integers(0, 90), max_size=3, unique=True)))
    tokens = 0 if greedy is None else draw(st.integers(1, 3))
    if greedy is not None and greedy.n_tokens is not None:
        tokens = greedy.n_tokens
    sizes = {
        "t": tokens,
        "k": draw(st.integers(0, 3)),
        "l": len(layers),
        "d": draw(st.integers(0, 3)),
        "c": len(example.choices or ()),
        "m": len(samples),
        "a": 1 + len(samples),
        "r": draw(st.integers(0, 3)),
        "s": draw(st.integers(0, 3)),
        "v": draw(st.integers(0, 3)),
        "p": draw(st.integers(0, 3)),
        "y": draw(st.integers(0, 3)),
        "x": draw(st.integers(0, 3)),
        "q": 2,
        "w": draw(st.integers(0, 3)),
    }
    features = {}
    for feature in draw(st.sets(st.sampled_from(sorted(ARRAY_AXES)))):
        shape = tuple(sizes[axis] for axis in ARRAY_AXES[feature])
        kind = draw(st.sampled_from(INTEGERS if feature in INTEGER_FEATURES else FLOATS))
        first = draw(st.integers(0, 2**16))
        values = ((first + 7919 * np.arange(math.prod(shape))) % 97 / 3 - 16).reshape(shape)
        array = np.asarray(np.abs(values) if kind.startswith("u") else values).astype(kind)
        features[feature] = np.array(array, order="F") if draw(st.booleans()) else array
    truth = draw(st.sampled_from(["same", "changed", "unknown"]))
    return replace(bare, features=features, layers=layers, truth=truth)


Run = tuple[list[Example], list[Record], list[Quarantined], list[Refused], int]


@st.composite
def runs(draw: st.DrawFn) -> Run:
    mine = draw(st.lists(examples(), max_size=4, unique_by=lambda e: e.id))
    rows, quarantined, refused = [], [], []
    for example in mine:
        for condition in draw(st.lists(IDS, max_size=2, unique=True)):
            kind = draw(st.integers(0, 4))
            if kind == 0:
                quarantined.append(Quarantined(Key(example.id, condition), draw(UNICODE)))
            elif kind == 1:
                refused.append(Refused(Key(example.id, condition), draw(UNICODE)))
            else:
                rows.append(draw(records(example, condition)))
    return mine, rows, quarantined, refused, draw(st.integers(1, 3))


def write(path: Path, run: Run) -> RunStore:
    mine, rows, quarantined, refused, size = run
    store = RunStore.create(path, make_manifest(shard_size=size, conditions=()), mine)
    with store.writer() as writer:
        for index in range(store.manifest.n_shards or 0):
            ids = {e.id for e in store.shard_examples(index)}
            writer.commit(
                index,
                [r for r in rows if r.example.id in ids],
                [q for q in quarantined if q.key.example_id in ids],
                refused=[row for row in refused if row.key.example_id in ids],
            )
    return store


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(run=runs())
def test_round_trip(folder: Path, run: Run) -> None:
    mine, rows, quarantined, refused, _ = run
    for name in ("one", "two"):
        shutil.rmtree(folder / name, ignore_errors=True)
    write(folder / "one", run)
    store = RunStore.open(folder / "one")
    assert store.examples() == mine
    stored = list(store.records())
    assert [r.key for r in stored] == [r.key for r in rows]
    for record, other in zip(stored, rows, strict=True):
        assert_same_record(record, other)
    assert store.quarantined() == quarantined
    assert store.refused() == refused
    found = describe_run(folder / "one")
    assert (found.refused, found.changed, found.unknown) == (
        len(refused),
        sum(r.truth == "changed" for r in rows),
        sum(r.truth == "unknown" for r in rows),
    )
    assert store.available() == {f for r in rows for f in r.features}
    assert store.verify() == []
    assert compared_bytes(write(folder / "two", run).path) == compared_bytes(store.path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    run=runs(),
    features=st.sets(st.sampled_from(list(Feature))),
    layers=st.sets(st.integers(0, 90)),
)
def test_a_selection_is_a_part_of_the_whole(
    folder: Path,
    run: Run,
    features: set[Feature],
    layers: set[int],
) -> None:
    shutil.rmtree(folder / "one", ignore_errors=True)
    store = write(folder / "one", run)
    for record, whole in zip(store.records(features=features), store.records(), strict=True):
        kept = {f: a for f, a in whole.features.items() if f in features}
        assert_same_record(record, replace(whole, features=kept))
    common = set(store.layers())
    for record in store.records():
        if record.features.keys() & LAYERED:
            common &= set(record.layers)
    chosen = layers & common
    for record, whole in zip(store.records(layers=chosen), store.records(), strict=True):
        at = [i for i, layer in enumerate(whole.layers) if layer in chosen]
        kept = {f: a[at] if f in LAYERED else a for f, a in whole.features.items()}
        bare = replace(whole, features={})
        expected = replace(bare, layers=tuple(whole.layers[i] for i in at))
        assert_same_record(record, replace(expected, features=kept))
    conditions = {r.condition for r in store.records()}
    for condition in conditions:
        assert [r.key for r in store.records(condition=condition)] == [
            r.key for r in store.records() if r.condition == condition
        ]


@settings(max_examples=60, deadline=None)
@given(text=st.text(), other=st.text())
def test_any_text_at_all_can_be_committed(folder: Path, text: str, other: str) -> None:
    """Lone surrogates included; valid text comes back unchanged, the rest escaped."""
    shutil.rmtree(folder / "one", ignore_errors=True)
    example = Example(id="x", question=text, references=(other,), meta={other: text})
    store = RunStore.create(folder / "one", make_manifest(), [example])
    greedy = Generation(text, tokens=(text, other), reasoning=other)
    with store.writer() as writer:
        writer.commit(0, [Record(example, greedy=greedy)], [Quarantined(Key("x", "blank"), text)])
    (stored,) = store.records()

    def escaped(value: str) -> str:
        return value.encode("utf-8", "backslashreplace").decode("utf-8")

    assert stored.answer.text == escaped(text)
    assert stored.answer.tokens == (escaped(text), escaped(other))
    assert stored.example.question == escaped(text)
    assert dict(stored.example.meta) == {escaped(other): escaped(text)}
    assert store.quarantined()[0].reason == escaped(text)
    resumed = RunStore.resume(folder / "one", make_manifest(), [example])
    assert resumed.committed() == {0}
