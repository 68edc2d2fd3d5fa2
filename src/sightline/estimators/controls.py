"""Controls: scores that know nothing of the answer's truth; a method must beat them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xxhash
from jaxtyping import Float

from sightline.core.errors import DataError, UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Record
from sightline.estimators.signals import FREE, answer_start, require


@dataclass(frozen=True, slots=True)
class AnswerLength:
    """Length of the answer; longer is taken to be worse.

    In tokens, the end token included; in characters for a record whose tokens were not observed.
    """

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.ANSWER})
    family: ClassVar[str] = "control"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = True
    simple: ClassVar[bool] = False

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """A count, ≥ 0."""
        require(records, self.needs, self)
        return np.array([_length(record) for record in records], dtype=np.float64)

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing."""
        return FREE


@dataclass(frozen=True, slots=True)
class Random:
    """A number drawn for the record's key, the same on every machine and in every order.

    Attributes:
        seed: Another seed gives other numbers.
    """

    seed: int = 0

    needs: ClassVar[frozenset[Feature]] = frozenset()
    family: ClassVar[str] = "control"
    is_probability: ClassVar[bool] = False
    control: ClassVar[bool] = True
    simple: ClassVar[bool] = False

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Uniform on [0, 1)."""
        hashes = [
            xxhash.xxh3_64_intdigest(
                f"{self.seed}\0{record.example.id}\0{record.condition}".encode(
                    "utf-8", "surrogatepass"
                )
            )
            for record in records
        ]
        return (np.array(hashes, dtype=np.uint64) >> np.uint64(11)) * 2.0**-53

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing."""
        return FREE


@dataclass(frozen=True, slots=True)
class QuestionType:
    """Error rate of the question's type, learned on labelled records.

    The rate is smoothed toward the overall error rate, which a type never seen in fitting gets.

    Attributes:
        strength: Weight of the overall rate, in records.
    """

    strength: float = 1.0

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.QUESTION_TYPE})
    family: ClassVar[str] = "control"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = True
    simple: ClassVar[bool] = False
    slow: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.strength < float("inf"):
            raise UsageError(
                f"Question type strength {self.strength}; a positive number of records is "
                "required. Use 1."
            )

    def fit(
        self,
        records: Sequence[Record],
        correct: Float[np.ndarray, " n"],
        *,
        rng: np.random.Generator,
    ) -> FittedQuestionType:
        """Returns the types' smoothed error rates; nothing is drawn from ``rng``.

        Raises:
            DataError: There is no record, or not one correctness per record.
        """
        require(records, self.needs, self)
        if len(records) == 0 or len(correct) != len(records):
            raise DataError(
                f"{len(records)} records and {len(correct)} values of correctness to fit question "
                "types on; one value for each of at least 1 record is required. Pass both."
            )
        wrong = 1.0 - np.asarray(correct, dtype=np.float64)
        overall = float(wrong.mean())
        names, code = np.unique([_type(record) for record in records], return_inverse=True)
        errors = np.bincount(code, weights=wrong) + self.strength * overall
        rates = errors / (np.bincount(code) + self.strength)
        return FittedQuestionType(overall, dict(zip(names.tolist(), rates.tolist(), strict=True)))

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing."""
        return FREE


@dataclass(frozen=True, slots=True)
class FittedQuestionType:
    """Error rates by question type.

    Attributes:
        overall: Error rate given to types without a rate of their own.
        rates: Error rate by type.
    """

    overall: float
    rates: Mapping[str, float]

    needs: ClassVar[frozenset[Feature]] = frozenset({Feature.QUESTION_TYPE})
    family: ClassVar[str] = "control"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = True
    simple: ClassVar[bool] = False

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Error rate of the record's type, in [0, 1]."""
        require(records, self.needs, self)
        return np.array([self.rates.get(_type(r), self.overall) for r in records], dtype=np.float64)

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing."""
        return FREE

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The rates, as JSON; no arrays."""
        return {"overall": self.overall, "rates": dict(self.rates)}, {}

    @classmethod
    def from_state(
        cls, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> FittedQuestionType:
        """Rebuilds what `state` wrote."""
        del arrays
        return cls(float(settings["overall"]), dict(settings["rates"]))


def _type(record: Record) -> str:
    return record.example.question_type or ""


def _length(record: Record) -> int:
    tokens = record.answer.n_tokens
    return len(record.answer.text) if tokens is None else tokens - answer_start(record.answer)
