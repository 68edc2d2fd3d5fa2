"""Signals derived from stored answers: right values, few passes, one source, resumable."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "differential" / "vlm"))

from click.testing import CliRunner
from tiny_texts import save_encoder, save_entailment

from sightline.api import derive
from sightline.cli import cli
from sightline.core.errors import MissingFeatureError, StoreError, UsageError
from sightline.core.features import Feature
from sightline.core.records import link
from sightline.core.types import Example, Generation, Record
from sightline.estimators.encoders import ContentWords
from sightline.estimators.equivalence import VLUncertainty
from sightline.store.derived import Derivation
from sightline.store.run import Manifest, RunStore
from sightline.workflow.derive import (
    derive_embeddings,
    derive_entailment,
    derive_importance,
    token_spans,
)

ANSWERS = [
    ("a red dog", ["a red dog", "the dog is red", "", "two cats"]),
    ("yes", ["yes", "yes"]),
    ("", ["no"]),
    ("two cats", []),
]


def generation(text: str) -> Generation:
    return Generation(text, tokens=(*(f" {word}" for word in text.split()), "</s>"))


def record(i: int, answer: str, samples: list[str]) -> Record:
    example = Example(id=f"e{i}", question="what is it", choices=None)
    return Record(example, greedy=generation(answer), samples=tuple(map(generation, samples)))


def made(path: Path, records: list[Record], shard_size: int = 2) -> RunStore:
    manifest = Manifest(
        run_id="r",
        created="2026-01-01T00:00:00+00:00",
        kind="imported",
        model={"name": "m"},
        dataset={"name": "d"},
        settings={},
        versions={},
        shard_size=shard_size,
    )
    store = RunStore.create(path, manifest, [r.example for r in records])
    with store.writer() as writer:
        for index in range(store.manifest.n_shards or 0):
            writer.commit(index, records[index * shard_size : (index + 1) * shard_size])
    return store


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return made(tmp_path / "run", [record(i, *row) for i, row in enumerate(ANSWERS)])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_encoder(tmp_path_factory.mktemp("models") / "encoder"))


@pytest.fixture(scope="module")
def nli(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_entailment(tmp_path_factory.mktemp("models") / "nli"))


class Judge:
    """Entails where every word of the second text is in the first; else contradicts by ¾."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def fingerprint(self) -> dict[str, str]:
        return {"name": "judge"}

    def probabilities(self, pairs):
        self.asked += pairs
        inside = [set(two.split()) <= set(one.split()) for one, two in pairs]
        return np.array([[1, 0, 0] if i else [0, 0.25, 0.75] for i in inside], dtype=np.float32)


def texts_of(record: Record) -> list[str]:
    return [record.answer.text, *(sample.text for sample in record.samples)]


class TestEmbeddings:
    def test_they_are_the_vectors_of_the_answers_greedy_first(self, store: RunStore) -> None:
        result = derive_embeddings(store, ContentWords())
        assert (result.records, result.shards, result.interrupted) == (3, 2, False)
        for stored in store.records():
            if not stored.samples:
                assert not stored.has(Feature.EMBEDDINGS)
                continue
            expected = ContentWords().embed(texts_of(stored))
            np.testing.assert_allclose(stored.array(Feature.EMBEDDINGS), expected, atol=1e-7)

    def test_the_question_is_put_first_on_request(self, store: RunStore) -> None:
        result = derive_embeddings(store, ContentWords(), with_question=True)
        first = next(iter(store.records()))
        asked = [f"what is it {text}" for text in texts_of(first)]
        expected = ContentWords().embed(asked)
        np.testing.assert_allclose(first.array(Feature.EMBEDDINGS), expected, atol=1e-7)
        assert result.source["with_question"] is True
        with pytest.raises(StoreError, match="--replace"):
            derive_embeddings(store, ContentWords())

    def test_a_run_without_samples_is_named(self, tmp_path: Path) -> None:
        bare = made(tmp_path / "bare", [record(0, "yes", [])])
        for step, model in ((derive_embeddings, ContentWords()), (derive_entailment, Judge())):
            with pytest.raises(MissingFeatureError, match="no answer with samples or views"):
                step(bare, model)
        assert bare.derived() == {}

    def test_an_encoder_without_a_fingerprint_is_refused(self, store: RunStore) -> None:
        class Anonymous:
            def embed(self, texts):
                return ContentWords().embed(texts)

        with pytest.raises(UsageError, match="Anonymous has no fingerprint"):
            derive_embeddings(store, Anonymous())


class TestViews:
    """Answers under conditions that keep the right answer, of two examples, one with samples."""

    ANSWERS: ClassVar = {
        "clean": "a red dog",
        "blur:1+wording:1": "a dog",
        "blur:2+wording:2": "two cats",
        "blank": "no",
    }

    @pytest.fixture
    def viewed(self, tmp_path: Path) -> RunStore:
        store = made(tmp_path / "viewed", [record(0, "", ["yes"]), record(1, "", [])])
        examples = [record(i, "", []).example for i in range(2)]
        store = RunStore.create(tmp_path / "seen", store.manifest, examples)
        drawn = ("clean", "blur:2+wording:2"), ()
        rows = [
            Record(e, condition, generation(text), (generation("yes"),) * (condition in drawn[i]))
            for i, e in enumerate(examples)
            for condition, text in self.ANSWERS.items()
        ]
        with store.writer() as writer:
            writer.commit(0, rows)
        return store

    def test_each_text_has_its_vector_in_alphabetical_order(self, viewed: RunStore) -> None:
        derive_embeddings(viewed, ContentWords())
        first, second = viewed.records(condition="clean")
        texts = ["a dog", "a red dog", "two cats", "yes"]
        for one, expected in ((first, texts), (second, texts[:-1])):
            vectors = one.array(Feature.VIEW_EMBEDDINGS)
            np.testing.assert_allclose(vectors, ContentWords().embed(expected), atol=1e-7)
        assert first.has(Feature.EMBEDDINGS)
        assert not second.has(Feature.EMBEDDINGS)
        others = [r for r in viewed.records() if r.condition != "clean"]
        assert not any(r.has(Feature.VIEW_EMBEDDINGS) for r in others)

    def test_every_ordered_pair_is_judged(self, viewed: RunStore) -> None:
        judge = Judge()
        derive_entailment(viewed, judge)
        (_, second) = viewed.records(condition="clean")
        entails = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]])  # a dog, a red dog, two cats
        np.testing.assert_array_equal(second.array(Feature.VIEW_ENTAILMENT), entails)
        contradicts = 0.75 * (1 - entails)
        np.testing.assert_array_equal(second.array(Feature.VIEW_CONTRADICTION), contradicts)
        assert len(judge.asked) == len(set(judge.asked))
        assert not any("no" in pair for pair in judge.asked), "a blank picture is no view"

    def test_an_estimator_reads_them_off_linked_records(self, viewed: RunStore) -> None:
        derive_embeddings(viewed, ContentWords())
        linked = link(list(viewed.records()), condition="clean")
        stored = VLUncertainty(clusters="embeddings").uncertainty(linked)
        np.testing.assert_allclose(stored, VLUncertainty(clusters="words").uncertainty(linked))


class TestEntailment:
    def test_every_ordered_pair_by_hand(self, store: RunStore) -> None:
        derive_entailment(store, Judge())
        first = next(iter(store.records()))
        entails = [  # a red dog, a red dog, the dog is red, (empty), two cats
            [1, 1, 0, 1, 0],
            [1, 1, 0, 1, 0],
            [0, 0, 1, 1, 0],
            [0, 0, 0, 1, 0],
            [0, 0, 0, 1, 1],
        ]
        np.testing.assert_array_equal(first.array(Feature.ENTAILMENT), entails)
        contradicts = 0.75 * (1 - np.array(entails))
        np.testing.assert_array_equal(first.array(Feature.CONTRADICTION), contradicts)

    def test_equal_texts_are_never_shown_and_no_pair_twice(self, store: RunStore) -> None:
        judge = Judge()
        derive_entailment(store, judge)
        assert all(one != two for one, two in judge.asked)
        assert len(judge.asked) == len(set(judge.asked)) == 12 + 2
        (_, second, *_) = store.records()
        np.testing.assert_array_equal(second.array(Feature.ENTAILMENT), np.ones((3, 3)))
        np.testing.assert_array_equal(second.array(Feature.CONTRADICTION), np.zeros((3, 3)))

    def test_identical_samples_ask_nothing(self, tmp_path: Path) -> None:
        judge = Judge()
        same = made(tmp_path / "same", [record(0, "yes", ["yes"] * 5)])
        derive_entailment(same, judge)
        assert judge.asked == []

    def test_few_passes_at_equal_clusters(self, tmp_path: Path, nli: str) -> None:
        """100 questions of 10 samples: at most a tenth of 774 passes, and the same clusters.

        774 is what lm-polygraph made: per question, its distinct samples in all ordered pairs, ten
        to a batch. The reference here asks the plain model the same way.
        """
        from sightline.models import load_entailment_model

        rng = np.random.default_rng(0)
        words = "red blue green dog cats bus circle square big small left two".split()  # noqa: SIM905
        records = []
        for i in range(100):
            said = [" ".join(rng.choice(words, rng.integers(1, 5))) for _ in range(9)]
            samples = [said[k] for k in rng.integers(0, 9, 10)]
            records.append(record(i, samples[0], samples))
        run = made(tmp_path / "many", records, shard_size=32)
        model = load_entailment_model(nli)
        result = derive_entailment(run, model)
        assert result.passes == model.passes <= 77
        peer = load_entailment_model(nli)
        for stored in run.records():
            texts = texts_of(stored)
            distinct = list(dict.fromkeys(texts))
            pairs = [(one, two) for one in distinct for two in distinct]
            judged = {}
            for at in range(0, len(pairs), 10):
                batch = pairs[at : at + 10]
                judged.update(zip(batch, peer.probabilities(batch), strict=True))
            table = np.stack([[judged[one, two] for two in texts] for one in texts])
            own = np.stack(
                [stored.array(Feature.ENTAILMENT), stored.array(Feature.CONTRADICTION)], -1
            )
            different = np.array([[one != two for two in texts] for one in texts])
            np.testing.assert_allclose(own[different], table[different][:, [0, 2]], atol=1e-5)
            assert clusters(texts, own[..., 0] > 0.5) == clusters(texts, table[..., 0] > 0.5)
        assert result.passes <= 0.1 * peer.passes


def clusters(texts: list[str], entails: np.ndarray) -> list[int]:
    """Greedy clustering by entailment both ways, equal texts together."""
    heads: list[int] = []
    found = []
    for i, text in enumerate(texts):
        for number, head in enumerate(heads):
            if texts[head] == text or (entails[head, i] and entails[i, head]):
                found.append(number)
                break
        else:
            found.append(len(heads))
            heads.append(i)
    return found


class TestImportance:
    def test_each_token_by_its_removal(self, store: RunStore) -> None:
        derive_importance(store, ContentWords())
        first = next(iter(store.records()))
        whole, *parts = ContentWords().embed(["a red dog", "red dog", "a dog", "a red"])
        expected = [1 - part @ whole for part in parts]
        np.testing.assert_allclose(first.array(Feature.TOKEN_IMPORTANCE), [*expected, 0], atol=1e-6)
        assert first.array(Feature.TOKEN_IMPORTANCE)[0] == pytest.approx(0, abs=1e-6), "an article"
        assert first.array(Feature.TOKEN_IMPORTANCE)[1] > 0.2, "a content word"

    def test_every_answer_with_tokens_has_it(self, store: RunStore) -> None:
        assert derive_importance(store, ContentWords(), with_question=True).records == 4
        (_, _, empty, _) = store.records()
        np.testing.assert_array_equal(empty.array(Feature.TOKEN_IMPORTANCE), [0])

    def test_neither_blank_answers_nor_follow_ups(self, tmp_path: Path) -> None:
        one = record(0, "yes", [])
        rows = [
            Record(one.example, condition=name, greedy=one.greedy)
            for name in ("clean", "blank", "asked:self_check", "jpeg:3", "jpeg:3+asked:self_check")
        ]
        store = RunStore.create(
            tmp_path / "run", made(tmp_path / "other", [one]).manifest, [one.example]
        )
        with store.writer() as writer:
            writer.commit(0, rows)
        derive_importance(store, ContentWords())
        having = [r.condition for r in store.records() if r.has(Feature.TOKEN_IMPORTANCE)]
        assert having == ["clean", "jpeg:3"]

    def test_answers_without_tokens_are_named(self, tmp_path: Path) -> None:
        bare = made(tmp_path / "bare", [Record(Example("x", "?"), greedy=Generation("yes"))])
        with pytest.raises(MissingFeatureError, match="no answer with tokens"):
            derive_importance(bare, ContentWords())

    @pytest.mark.parametrize(
        ("text", "tokens", "start", "expected"),
        [
            ("two dogs", ("two", "dogs"), 0, [(0, 3), (4, 8)]),  # spaces dropped in decoding
            (
                "two dogs",
                (" two", " ", "dog", "s", "</s>"),
                0,
                [(0, 3), None, (4, 7), (7, 8), None],
            ),
            ("yes", ("<think>", "yes", "</think>", "yes"), 3, [None, None, None, (0, 3)]),
            ("🍎 yes", ("\ufffd", "\ufffd", " yes", "</s>"), 0, [None, None, (2, 5), None]),
            ("", ("</s>",), 0, [None]),
            ("aa a", ("a", "a", " a"), 0, [(0, 1), (1, 2), (3, 4)]),
        ],
    )
    def test_where_tokens_lie(self, text, tokens, start, expected) -> None:
        assert token_spans(Generation(text, tokens=tokens, answer_start=start)) == expected


class TestTheCommand:
    def test_everything_at_once_then_nothing_to_do(
        self, store: RunStore, encoder: str, nli: str
    ) -> None:
        args = ["derive", str(store.path), "--embeddings", encoder, "--entailment", nli]
        args += ["--importance", encoder, "--json", "--display", "none"]
        first = CliRunner().invoke(cli, args)
        assert first.exit_code == 0, first.output
        rows = json.loads(first.stdout)["derived"]
        assert [row["kind"] for row in rows] == ["embeddings", "entailment", "importance"]
        assert all(row["shards"] == 2 and row["passes"] > 0 for row in rows)
        again = json.loads(CliRunner().invoke(cli, args).stdout)["derived"]
        assert [row["shards"] for row in again] == [0, 0, 0]
        assert store.verify() == []
        assert all(mine.shards == {0, 1} for mine in store.derived().values())

    def test_another_encoder_replaces_on_request_only(self, store: RunStore, encoder: str) -> None:
        derive(store.path, embeddings="words")
        with pytest.raises(StoreError, match=r"from .*words.*, not from .*encoder.*--replace"):
            derive(store.path, embeddings=encoder)
        (result,) = derive(store.path, embeddings=encoder, replace=True)
        assert result.shards == 2
        assert store.derived()[Derivation.EMBEDDINGS].source["name"] == "encoder"

    def test_a_stop_is_resumed_to_the_same_bytes(
        self, store: RunStore, tmp_path: Path, encoder: str
    ) -> None:
        whole = made(tmp_path / "whole", [record(i, *row) for i, row in enumerate(ANSWERS)])
        derive(whole.path, embeddings=encoder)
        asked: list[int] = []

        def stop_after_one() -> bool:
            asked.append(1)
            return len(asked) > 1

        (result,) = derive(
            store.path, embeddings=encoder, importance="words", should_stop=stop_after_one
        )
        assert (result.interrupted, result.shards) == (True, 1)
        (result,) = derive(store.path, embeddings=encoder)
        assert (result.interrupted, result.shards) == (False, 1)
        for file in sorted((whole.path / "derived").rglob("*.*")):
            other = store.path / file.relative_to(whole.path)
            assert other.read_bytes() == file.read_bytes()

    def test_nothing_named_is_a_usage_error(self, store: RunStore) -> None:
        with pytest.raises(UsageError, match="Nothing to derive is named"):
            derive(store.path)

    def test_answers_of_2000_tokens(self, tmp_path: Path, encoder: str, nli: str) -> None:
        long = "a red dog is there " * 400
        run = made(tmp_path / "long", [record(0, long.strip(), ["two cats " * 1000, "yes"])])
        derive(run.path, embeddings=encoder, entailment=nli)
        (stored,) = run.records()
        assert stored.array(Feature.EMBEDDINGS).shape == (3, 32)
        assert stored.array(Feature.ENTAILMENT).shape == (3, 3)
