"""Deriving: signals computed from the stored answers, written beside them, resumable.

Sentence vectors and entailment of a question's answers, and how much each token of the greedy
answer matters to its meaning. Nothing is asked of the observed model, so an imported run will do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from sightline.core.condition_names import ASKED, BLANK, CLEAN
from sightline.core.errors import MissingFeatureError, UsageError
from sightline.core.features import Feature
from sightline.core.records import link
from sightline.core.types import Generation, Key, Record
from sightline.estimators.encoders import ENCODERS, ContentWords, SentenceEncoder
from sightline.estimators.equivalence import equivalent_texts
from sightline.store.derived import Derivation
from sightline.store.run import RunStore

Progress = Callable[[str, int, int], None]


@runtime_checkable
class EntailmentClassifier(Protocol):
    """Judges pairs of texts."""

    def fingerprint(self) -> Mapping[str, Any]:
        """What identifies the model."""
        ...

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> Float[np.ndarray, "n 3"]:
        """Probabilities that the first text of a pair entails, neither, contradicts the second."""
        ...


@dataclass(frozen=True, slots=True)
class DeriveResult:
    """What one derivation did.

    Attributes:
        kind: What was derived.
        source: What computed it.
        records: Records that received it now; those that had it are not counted.
        shards: Shards written now.
        passes: Forward passes made, 0 where no model was asked.
        interrupted: Whether it stopped early, on request; the same command goes on.
    """

    kind: Derivation
    source: Mapping[str, Any]
    records: int
    shards: int
    passes: int
    interrupted: bool


def derive_named(
    store: RunStore,
    *,
    embeddings: str | None = None,
    entailment: str | None = None,
    importance: str | None = None,
    model_options: Mapping[str, Any] = MappingProxyType({}),
    **settings: Any,
) -> list[DeriveResult]:
    """Derives what models are named for, each model loaded once.

    Args:
        store: The run.
        embeddings: Sentence encoder: ``words``, a directory or a hub name.
        entailment: Entailment model: a directory or a hub name.
        importance: Sentence encoder, as ``embeddings``.
        model_options: Passed to the loading of models.
        settings: ``with_question``, ``replace``, ``progress`` and ``should_stop``.

    Returns:
        What each derivation did; after one that was interrupted, none follows.

    Raises:
        UsageError: No model is named, or one cannot be loaded.
    """
    from sightline.models import load_entailment_model, load_text_encoder

    if embeddings is None and entailment is None and importance is None:
        raise UsageError(
            "Nothing to derive is named; at least one of --embeddings, --entailment and "
            "--importance is required. Name a model, such as --embeddings words."
        )
    encoders = {
        name: ENCODERS[name] if name in ENCODERS else load_text_encoder(name, **model_options)
        for name in dict.fromkeys((embeddings, importance))
        if name is not None
    }
    steps: list[tuple[Callable[..., DeriveResult], Any]] = []
    if embeddings is not None:
        steps.append((derive_embeddings, encoders[embeddings]))
    if entailment is not None:
        steps.append((derive_entailment, load_entailment_model(entailment, **model_options)))
    if importance is not None:
        steps.append((derive_importance, encoders[importance]))
    results: list[DeriveResult] = []
    for step, model in steps:
        results.append(step(store, model, **settings))
        if results[-1].interrupted:
            break
    return results


def derive_embeddings(
    store: RunStore, encoder: SentenceEncoder, *, with_question: bool = False, **options: Any
) -> DeriveResult:
    """Stores unit sentence vectors of every answer and its samples (`Feature.EMBEDDINGS`).

    Of clean records also those of what was answered under their views, each text once
    (`Feature.VIEW_EMBEDDINGS`).

    Args:
        store: The run; records without samples and views are left as they are.
        encoder: Turns texts into unit vectors.
        with_question: Put the question before each answer.
        options: ``replace``, ``progress`` and ``should_stop``, as `sightline.api.derive` has them.

    Raises:
        MissingFeatureError: No record has samples or views.
        StoreError: The run has vectors of another encoder, and replacing was not asked for.
    """
    views = _view_texts(store)

    def compute(records: Sequence[Record]) -> list[dict[Feature, np.ndarray]]:
        return vectors_of([texts_of(record, views, with_question) for record in records], encoder)

    return _derive(store, Derivation.EMBEDDINGS, encoder, compute, with_question, views, **options)


def derive_entailment(
    store: RunStore, model: EntailmentClassifier, *, with_question: bool = False, **options: Any
) -> DeriveResult:
    """Stores p(entails) and p(contradicts) of every ordered pair of a question's answers.

    Equal texts entail each other with probability 1 and are never shown to the model. Of clean
    records the pairs of what was answered under their views are judged too
    (`Feature.VIEW_ENTAILMENT`).

    Args:
        store: The run; records without samples and views are left as they are.
        model: Judges pairs.
        with_question: Put the question before each answer.
        options: ``replace``, ``progress`` and ``should_stop``, as `sightline.api.derive` has them.

    Raises:
        MissingFeatureError: No record has samples or views.
        StoreError: The run has judgements of another model, and replacing was not asked for.
    """
    views = _view_texts(store)

    def compute(records: Sequence[Record]) -> list[dict[Feature, np.ndarray]]:
        return entailment_of([texts_of(record, views, with_question) for record in records], model)

    return _derive(store, Derivation.ENTAILMENT, model, compute, with_question, views, **options)


def _judgements(
    texts: Sequence[str], judged: Mapping[tuple[str, str], np.ndarray]
) -> Float[np.ndarray, "k k 3"]:
    """What the model said of all ordered pairs; equal texts entail each other."""
    same = np.array([1.0, 0.0, 0.0], dtype=np.float32)
    names, inverse = np.unique(np.array(texts, dtype=object), return_inverse=True)
    table = np.stack([[judged.get((one, two), same) for two in names] for one in names])
    return np.asarray(table[inverse][:, inverse], dtype=np.float32)


def derive_importance(
    store: RunStore, encoder: SentenceEncoder, *, with_question: bool = False, **options: Any
) -> DeriveResult:
    """Stores how much each token of the greedy answer matters (`Feature.TOKEN_IMPORTANCE`).

    1 − cosine of the answer's vector with and without the token. Tokens that are no part of the
    answer's text (reasoning, end token, white space, single bytes of a character) have 0.

    Args:
        store: The run; records without tokens, blank ones and follow-up questions are left as they
            are.
        encoder: Turns texts into unit vectors.
        with_question: Put the question before the answer.
        options: ``replace``, ``progress`` and ``should_stop``, as `sightline.api.derive` has them.

    Raises:
        MissingFeatureError: No record has tokens.
        StoreError: The run has them from another encoder, and replacing was not asked for.

    Source:
        Duan et al. 2024, Shifting Attention to Relevance (TokenSAR). Theirs is 1 − the score of a
        cross-encoder, ours 1 − the cosine of two sentence vectors.
    """

    def compute(records: Sequence[Record]) -> list[dict[Feature, np.ndarray]]:
        return importance_of(records, encoder, with_question=with_question)

    return _derive(store, Derivation.IMPORTANCE, encoder, compute, with_question, {}, **options)


Whose = Literal["samples", "views"]
"""Whose texts stand beside the greedy answer: its samples', or those under the views."""


def vectors_of(
    texts: Sequence[Mapping[Whose, Sequence[str]]], encoder: SentenceEncoder
) -> list[dict[Feature, np.ndarray]]:
    """Unit vectors of every record's texts, as `texts_of` gives them."""
    lists = [part for own in texts for part in own.values()]
    vectors = encoder.embed([text for part in lists for text in part]).astype(np.float32)
    parts = iter(np.split(vectors, np.cumsum([len(part) for part in lists])[:-1]))
    return [{_EMBEDDINGS[whose]: next(parts) for whose in own} for own in texts]


def entailment_of(
    texts: Sequence[Mapping[Whose, Sequence[str]]], model: EntailmentClassifier
) -> list[dict[Feature, np.ndarray]]:
    """What a model says of all ordered pairs of every record's texts."""
    distinct = [{*part} for own in texts for part in own.values()]
    pairs = sorted({(a, b) for part in distinct for a in part for b in part if a != b})
    judged = dict(zip(pairs, model.probabilities(pairs), strict=True)) if pairs else {}
    found: list[dict[Feature, np.ndarray]] = []
    for own in texts:
        found.append({})
        for whose, part in own.items():
            whole = _judgements(part, judged)
            entailment, contradiction = _ENTAILMENT[whose]
            found[-1] |= {entailment: whole[..., 0], contradiction: whole[..., 2]}
    return found


def importance_of(
    records: Sequence[Record], encoder: SentenceEncoder, *, with_question: bool
) -> list[dict[Feature, np.ndarray]]:
    """How much each token of every record's greedy answer matters."""
    texts: list[str] = []
    plans = []
    for record in records:
        spans = token_spans(record.answer)
        lead = f"{record.example.question} " if with_question else ""
        plans.append((len(texts), spans))
        texts.append(lead + record.answer.text)
        texts += [lead + _without(record.answer.text, span) for span in spans if span]
    vectors = encoder.embed(texts).astype(np.float64)
    found = []
    for start, spans in plans:
        inside = np.array([span is not None for span in spans])
        parts = vectors[start + 1 : start + 1 + int(inside.sum())]
        importance = np.zeros(len(spans), dtype=np.float32)
        importance[inside] = np.clip(1 - parts @ vectors[start], 0, 2)
        found.append({Feature.TOKEN_IMPORTANCE: importance})
    return found


def token_spans(answer: Generation) -> list[tuple[int, int] | None]:
    """Where each token of a generation lies in its text; None for what is no part of it.

    Tokens are matched in order, white space around them aside, since tokenizers drop it when they
    decode a token by itself.

    Example:
        >>> token_spans(Generation("two dogs", tokens=(" two", "dog", "s", "</s>")))
        [(0, 3), (4, 7), (7, 8), None]
    """
    spans: list[tuple[int, int] | None] = []
    at, lost = 0, False
    for i, token in enumerate(answer.tokens or ()):
        piece = token.strip()
        if i < answer.answer_start or not piece:
            spans.append(None)
            continue
        while at < len(answer.text) and answer.text[at].isspace():
            at += 1
        # Bytes of one character are shown as replacement characters: what follows is searched for.
        start = answer.text.find(piece, at) if lost else at
        if start < 0 or not answer.text.startswith(piece, start):
            lost = lost or "\ufffd" in piece
            spans.append(None)
            continue
        lost, at = False, start + len(piece)
        spans.append((start, at))
    return spans


def _derive(
    store: RunStore,
    kind: Derivation,
    model: Any,
    compute: Callable[[Sequence[Record]], list[dict[Feature, np.ndarray]]],
    with_question: bool,
    views: Mapping[Key, Sequence[str]],
    *,
    replace: bool = False,
    progress: Progress = lambda _kind, _done, _total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> DeriveResult:
    """Computes one derivation for every shard that lacks it; see the functions above.

    Args:
        store: The run.
        kind: What is derived.
        model: What computes it.
        compute: Records that can have it to its arrays.
        with_question: Part of what the arrays depend on.
        views: The texts under the views of the records that have some.
        replace: Remove what another model or setting computed.
        progress: Called with (kind, shards done, shards to do).
        should_stop: Asked before every shard.
    """
    source = source_of(model, with_question)
    if next(_fit(store, kind, None, views), None) is None:
        needed = "tokens" if kind is Derivation.IMPORTANCE else "samples or views"
        raise MissingFeatureError(
            f"{store.path} has no answer with {needed}; {kind.value} require them. Collect the "
            f"run with {needed}, or leave this signal out."
        )
    before = _passes(model)
    records = shards = 0
    interrupted = False
    with store.deriver(kind, source, replace=replace) as writer:
        pending = writer.pending
        progress(kind.value, 0, len(pending))
        for index in pending:
            if should_stop():
                interrupted = True
                break
            started, passes = time.perf_counter(), _passes(model)
            fit = list(_fit(store, kind, index, views))
            arrays = compute(fit) if fit else []
            log = {"seconds": time.perf_counter() - started, "passes": _passes(model) - passes}
            writer.commit(
                index,
                [_holding(record, found) for record, found in zip(fit, arrays, strict=True)],
                log,
            )
            records, shards = records + len(fit), shards + 1
            progress(kind.value, shards, len(pending))
    return DeriveResult(kind, source, records, shards, _passes(model) - before, interrupted)


def _fit(
    store: RunStore, kind: Derivation, shard: int | None, views: Mapping[Key, Sequence[str]]
) -> Iterator[Record]:
    """Records that can have the signal, without their arrays."""
    for record in store.records(shard=shard, features=()):
        if record.greedy is None:
            continue
        if kind is not Derivation.IMPORTANCE:
            if record.samples or record.key in views:
                yield record
        elif record.greedy.tokens is not None and not _is_aside(record.condition):
            yield record


def _is_aside(condition: str) -> bool:
    return any(part.split(":")[0] in (BLANK, ASKED) for part in condition.split("+"))


def _holding(record: Record, arrays: Mapping[Feature, np.ndarray]) -> Record:
    return replace(record, features=arrays, layers=())


def _view_texts(store: RunStore) -> dict[Key, list[str]]:
    """Texts of the answer and under its views, of every clean record that has views."""
    linked = link(list(store.records(features=())), condition=CLEAN)
    return {
        record.key: equivalent_texts(record)
        for record in linked
        if record.greedy is not None and record.related.views
    }


_EMBEDDINGS: Mapping[Whose, Feature] = MappingProxyType(
    {"samples": Feature.EMBEDDINGS, "views": Feature.VIEW_EMBEDDINGS}
)
_ENTAILMENT: Mapping[Whose, tuple[Feature, Feature]] = MappingProxyType(
    {
        "samples": (Feature.ENTAILMENT, Feature.CONTRADICTION),
        "views": (Feature.VIEW_ENTAILMENT, Feature.VIEW_CONTRADICTION),
    }
)


def texts_of(
    record: Record, views: Mapping[Key, Sequence[str]], with_question: bool
) -> dict[Whose, list[str]]:
    """The greedy answer with the samples, and the texts under the views, where there are some."""
    lead = f"{record.example.question} " if with_question else ""
    found: dict[Whose, list[str]] = {}
    if record.samples:
        found["samples"] = [lead + answer.text for answer in (record.answer, *record.samples)]
    if record.key in views:
        found["views"] = [lead + text for text in views[record.key]]
    return found


def _without(text: str, span: tuple[int, int]) -> str:
    return " ".join((text[: span[0]] + text[span[1] :]).split())


def source_of(model: Any, with_question: bool) -> dict[str, Any]:
    """What the arrays depend on, as the run records it.

    Raises:
        UsageError: The model has no fingerprint.
    """
    if isinstance(model, ContentWords):
        identity: Mapping[str, Any] = {"name": "words"}
    elif hasattr(model, "fingerprint"):
        identity = model.fingerprint()
    else:
        raise UsageError(
            f"{type(model).__name__} has no fingerprint; one is required, so that arrays of two "
            "models are never mixed. Add the method."
        )
    return {
        "name": identity["name"],
        "fingerprint": dict(identity),
        "with_question": with_question,
    }


def _passes(model: Any) -> int:
    return int(getattr(model, "passes", 0))
