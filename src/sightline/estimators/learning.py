"""What estimators that learn share: labelled rows, grouped folds, logistic regression.

Rows are put in the order of their keys before anything is drawn or summed, so a fit is the same to
the bit whatever order the records come in. Matrix products over rows are taken row by row, so a
score never depends on the rows beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import DataError, MissingExtraError
from sightline.core.features import Feature
from sightline.core.types import Record
from sightline.estimators.signals import require

FOLDS = 3
"""Folds of an inner validation."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Labelled records in the order of their keys.

    Attributes:
        records: The records.
        correct: In [0, 1]; fractions are part right, part wrong.
        groups: Index of each record's group.
        order: Where each record stood among those given.
    """

    records: tuple[Record, ...]
    correct: Float[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]
    order: Int[np.ndarray, " n"]


def labelled(
    records: Sequence[Record],
    correct: Float[np.ndarray, " n"],
    needs: frozenset[Feature],
    who: object,
) -> Labelled:
    """Checks and orders the rows to fit on.

    Raises:
        MissingFeatureError: A record lacks a needed signal.
        DataError: There is not one correctness in [0, 1] per record, or all answers are right, or
            all are wrong.
    """
    name = type(who).__name__
    require(records, needs, who)
    values = np.asarray(correct, dtype=np.float64)
    if values.shape != (len(records),) or not np.all((values >= 0) & (values <= 1)):
        raise DataError(
            f"{len(records)} records and correctness of shape {values.shape} to fit {name} on; one "
            "value in [0, 1] per record is required. Pass both."
        )
    if not 0 < values.sum() < len(values):
        raise DataError(
            f"{len(values)} labelled answers to fit {name} on, {values.sum():.0f} of them right; "
            "right and wrong ones are required. Label more answers."
        )
    order = sorted(range(len(records)), key=lambda i: records[i].key)
    names = [records[i].example.group for i in order]
    return Labelled(
        records=tuple(records[i] for i in order),
        correct=values[order],
        groups=np.unique(names, return_inverse=True)[1],
        order=np.array(order, dtype=np.int64),
    )


def grouped_folds(
    rows: Labelled, count: int, rng: np.random.Generator, who: object
) -> Int[np.ndarray, " n"]:
    """Deals whole groups to folds, those alike in correctness to different ones.

    Groups stand in line by their mean correctness, in random order among equals, and are dealt in
    turn, so every fold has about the same accuracy and what is outside a fold holds both classes.

    Args:
        rows: The rows.
        count: Number of folds; fewer where there are fewer groups.
        rng: Orders equals.
        who: The estimator, for the message.

    Returns:
        Fold of each row, from 0.

    Raises:
        DataError: Right or wrong answers are in one group only.
    """
    sizes = np.bincount(rows.groups)
    right = np.bincount(rows.groups, weights=rows.correct)
    few = min(int((right > 0).sum()), int((right < sizes).sum()))
    if few < 2:
        raise DataError(
            f"{len(sizes)} groups of labelled answers to fit {type(who).__name__} on, only {few} "
            f"with a {'right' if (right > 0).sum() == few else 'wrong'} one; 2 are required, since "
            "inner validation holds groups out. Label more answers."
        )
    line = np.lexsort((rng.permutation(len(sizes)), right / sizes))
    fold = np.empty(len(sizes), dtype=np.int64)
    fold[line] = np.arange(len(sizes)) % min(count, len(sizes))
    return fold[rows.groups]


def fit_logistic(
    features: Float[np.ndarray, "n d"], correct: Float[np.ndarray, " n"], strength: float
) -> tuple[Float[np.ndarray, " d"], float]:
    """Logistic regression of being right, with an L2 penalty.

    An answer that is part right counts as a right and a wrong one with these weights.

    Args:
        features: One row per answer, standardised.
        correct: In [0, 1], neither all 0 nor all 1.
        strength: Weight of the data against the penalty (scikit-learn's ``C``).

    Returns:
        Weights and intercept of the log-odds of being right.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "learn", "fitting this estimator") from error
    weight = np.concatenate([correct, 1.0 - correct])
    kept = weight > 0
    model = LogisticRegression(C=strength, max_iter=1000)
    model.fit(
        np.concatenate([features, features])[kept],
        np.repeat([1, 0], len(features))[kept],
        sample_weight=weight[kept],
    )
    return np.asarray(model.coef_[0], dtype=np.float64), float(model.intercept_[0])


def log_loss(
    log_odds: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Negative log-likelihood of each row, in nats."""
    return np.asarray(np.logaddexp(0.0, log_odds) - correct * log_odds)


def wrong_probability(log_odds: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Probability of being wrong from the log-odds of being right, in [0, 1]."""
    return np.asarray(np.exp(-np.logaddexp(0.0, log_odds)))


def standardiser(
    features: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Mean and standard deviation of each feature; 1 for one that does not vary."""
    scale = features.std(axis=0)
    return features.mean(axis=0), np.where(scale > 0, scale, 1.0)


def by_row(
    features: Float[np.ndarray, "n d"], matrix: Float[np.ndarray, "d k"]
) -> Float[np.ndarray, "n k"]:
    """The product of each row with a matrix, the same to the bit whatever rows stand beside it."""
    return np.asarray(np.matmul(features[:, None, :], matrix)[:, 0, :])


def common_layers(records: Sequence[Record], who: object) -> tuple[int, ...]:
    """Layers of the hidden states, which all records to fit on must share.

    Raises:
        DataError: They differ.
    """
    counts = Counter(record.layers for record in records)
    if len(counts) > 1:
        one, other = (list(layers) for layers, _ in counts.most_common(2))
        raise DataError(
            f"Hidden states of layers {one} and of layers {other} to fit {type(who).__name__} on; "
            "the same layers are required of all records. Fit on one run."
        )
    return next(iter(counts))
