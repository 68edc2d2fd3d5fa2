"""Signals derived from an answer's texts, computed when the answer is decided about.

A policy's run had them derived by some encoder or entailment model; the policy records which. The
same one computes them here, so that they mean what they meant when the policy was fitted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sightline.core.errors import UsageError
from sightline.core.features import Feature
from sightline.core.types import Record
from sightline.estimators.encoders import ENCODERS
from sightline.store.derived import Derivation
from sightline.workflow.derive import (
    entailment_of,
    importance_of,
    source_of,
    texts_of,
    vectors_of,
)

KINDS: Mapping[Feature, Derivation] = {
    Feature.EMBEDDINGS: Derivation.EMBEDDINGS,
    Feature.ENTAILMENT: Derivation.ENTAILMENT,
    Feature.CONTRADICTION: Derivation.ENTAILMENT,
    Feature.TOKEN_IMPORTANCE: Derivation.IMPORTANCE,
}
"""Signals that are computed from one answer and its samples, and what computes them."""


def derived_kinds(needs: frozenset[Feature]) -> frozenset[Derivation]:
    """The derivations that these signals take."""
    return frozenset(KINDS[feature] for feature in needs & KINDS.keys())


@dataclass(frozen=True, slots=True)
class Deriver:
    """Adds derived signals to observed answers.

    Attributes:
        models: What computes each kind.
        with_question: Whether the question stood before each text, by kind.
    """

    models: Mapping[Derivation, Any]
    with_question: Mapping[Derivation, bool]

    def __call__(self, records: Sequence[Record]) -> list[Record]:
        """The records with the signals; those without the samples or tokens stay as they are."""
        found = [dict(record.features) for record in records]
        for kind, model in self.models.items():
            rows = [row for row, record in enumerate(records) if _fits(kind, record)]
            if not rows:
                continue
            chosen, asked = [records[row] for row in rows], self.with_question[kind]
            for row, arrays in zip(rows, _computed(kind, chosen, model, asked), strict=True):
                found[row].update(arrays)
        return [
            record if len(own) == len(record.features) else replace(record, features=own)
            for record, own in zip(records, found, strict=True)
        ]


def load_deriver(
    needs: frozenset[Feature],
    derived: Mapping[str, Mapping[str, Any]],
    text_models: Path | None = None,
) -> Deriver | None:
    """Loads what computes a policy's derived signals; None where it reads none.

    Args:
        needs: Signals that the policy reads.
        derived: What computed them in its run, as `Origin.derived` has it.
        text_models: Directory that holds those of them that are no hub models.

    Raises:
        UsageError: The policy does not say what computed them, or that cannot be loaded or is not
            what it was.
        MissingExtraError: It is a model, and the extra ``models`` is not installed.
    """
    kinds = sorted(derived_kinds(needs))
    if not kinds:
        return None
    models = {kind: _loaded(kind, derived.get(kind.value), text_models) for kind in kinds}
    return Deriver(models, {kind: bool(derived[kind.value]["with_question"]) for kind in kinds})


def _loaded(kind: Derivation, source: Mapping[str, Any] | None, text_models: Path | None) -> Any:
    if source is None:
        raise UsageError(
            f"The policy reads {kind.value} and does not say what computed them; a policy that "
            "does is required to decide new answers. Calibrate it again with this version."
        )
    name = str(source["name"])
    if name in ENCODERS and kind is not Derivation.ENTAILMENT:
        return ENCODERS[name]
    from sightline.models import load_entailment_model, load_text_encoder

    own = None if text_models is None else text_models / name
    if "/" not in name and (own is None or not own.is_dir()):
        raise UsageError(
            f"The policy's {kind.value} were computed by the local model {name!r}; the directory "
            f"that holds {name}/ is required. Name it with --text-models."
        )
    load = load_entailment_model if kind is Derivation.ENTAILMENT else load_text_encoder
    model = load(name if own is None or not own.is_dir() else str(own))
    now = json.loads(json.dumps(source_of(model, bool(source["with_question"]))))
    if now["fingerprint"] != source["fingerprint"]:
        raise UsageError(
            f"The policy's {kind.value} were computed by {name}, whose files have changed since; "
            "the same files are required. Restore them, or derive and calibrate again."
        )
    return model


def _fits(kind: Derivation, record: Record) -> bool:
    if record.greedy is None:
        return False
    return (
        record.greedy.tokens is not None if kind is Derivation.IMPORTANCE else bool(record.samples)
    )


def _computed(
    kind: Derivation, records: Sequence[Record], model: Any, with_question: bool
) -> list[dict[Feature, np.ndarray]]:
    if kind is Derivation.IMPORTANCE:
        return importance_of(records, model, with_question=with_question)
    texts = [texts_of(record, {}, with_question) for record in records]
    compute = vectors_of if kind is Derivation.EMBEDDINGS else entailment_of
    return compute(texts, model)
