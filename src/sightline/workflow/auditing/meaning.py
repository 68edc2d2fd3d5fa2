"""Free answers compared by what they say, beside the comparison of their short forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from sightline.audit.resampled import Clusters
from sightline.core.audit_answers import Meaning
from sightline.estimators.encoders import ContentWords
from sightline.estimators.semantic import DiscreteSemanticEntropy
from sightline.workflow.auditing.columns import Columns
from sightline.workflow.auditing.pairs import AuditRows
from sightline.workflow.derive import EntailmentClassifier

WORDS = "content words"
_ENTAILS = 0

Texts = tuple[str, str]


def changed_meanings(
    rows: AuditRows, judge: EntailmentClassifier | None
) -> dict[str, Mapping[int, bool]]:
    """Whether each free answer says something else than the clean one, by judge, by pair.

    Two answers say the same by their content words where the cosine of these reaches that of the
    semantic estimators; by entailment where each entails the other more likely than not. Equal
    texts always say the same.

    Args:
        rows: Questions and pairs.
        judge: An entailment model; None for content words alone.

    Returns:
        The best judge last; nothing where no question is answered freely.
    """
    free = [i for i, pair in enumerate(rows.pairs) if rows.items[pair.item].form == "text"]
    if not free:
        return {}
    texts = [_texts(rows, i) for i in free]
    found: dict[str, Mapping[int, bool]] = {
        WORDS: dict(zip(free, _by_words(texts).tolist(), strict=True))
    }
    if judge is not None:
        name = f"entailment by {judge.fingerprint().get('name', 'a model')}"
        questions = [rows.items[rows.pairs[i].item].record.example.question for i in free]
        said = [(f"{q} {a}", f"{q} {b}") for q, (a, b) in zip(questions, texts, strict=True)]
        found[name] = dict(zip(free, _by_entailment(said, judge).tolist(), strict=True))
    return found


def meanings_of(
    rows: AuditRows,
    columns: Columns,
    changed: Mapping[str, Mapping[int, bool]],
    clusters: Clusters,
) -> tuple[Meaning, ...]:
    """Shares of changed meanings, over the picture pairs that count."""
    counted = columns.counted_pictures
    found = []
    for judge, of_pair in changed.items():
        at = np.array([i for i in of_pair if counted[i]], dtype=np.int64)
        if not len(at):
            continue
        images, flipped = rows.image_of[at], rows.flipped[at]
        moved = np.array([of_pair[int(i)] for i in at])
        found.append(
            Meaning(
                judge=judge,
                changed=clusters.share(images, moved),
                flipped=clusters.share(images, flipped),
                reworded=clusters.share(images, ~moved, flipped, undefined="no short form changes"),
                overlooked=clusters.share(
                    images, moved, ~flipped, undefined="every short form changes"
                ),
            )
        )
    return tuple(found)


def _texts(rows: AuditRows, pair: int) -> Texts:
    record = rows.pairs[pair].record
    return rows.items[rows.pairs[pair].item].record.answer.text, record.answer.text


def _by_words(texts: Sequence[Texts]) -> Bool[np.ndarray, " n"]:
    number = {text: i for i, text in enumerate(dict.fromkeys(t for own in texts for t in own))}
    vectors = ContentWords().embed(tuple(number))
    first, second = (vectors[[number[own[side]] for own in texts]] for side in (0, 1))
    apart = np.einsum("nd,nd->n", first, second) < DiscreteSemanticEntropy().threshold
    return np.asarray(apart & np.array([a != b for a, b in texts]))


def _by_entailment(texts: Sequence[Texts], judge: EntailmentClassifier) -> Bool[np.ndarray, " n"]:
    asked = sorted({pair for a, b in texts if a != b for pair in ((a, b), (b, a))})
    judged = judge.probabilities(asked) if asked else np.zeros((0, 3))
    entails = {
        pair: int(np.argmax(own)) == _ENTAILS for pair, own in zip(asked, judged, strict=True)
    }
    return np.array([a != b and not (entails[a, b] and entails[b, a]) for a, b in texts])
