"""The gates tell a model that reads its picture from one that does not."""

import numpy as np
import pytest

from sightline.core.errors import MissingFeatureError
from sightline.core.types import Generation, Record
from sightline.data.scenes import generate
from sightline.workflow.gates import measure_gates

N, SEED = 240, 3


class _Reader:
    """Knows the right answer to a question about the picture it belongs to, and only then.

    On the harder pictures it guesses with a lower probability.
    """

    def __init__(self, *, looks=True, observable=True):
        batch = generate("test", -(-N // 3) + N // 20 + 2, SEED, 3)
        self._known = {}
        for item in batch.items[:N]:
            pixels = batch.images[item.picture].tobytes()
            self._known[pixels, item.question, item.choices] = item
        self._looks, self._observable = looks, observable

    def fingerprint(self):
        return {"name": "reader"}

    def observe(self, examples, images, request):
        records = []
        for example, (image,) in zip(examples, images, strict=True):
            pixels = np.asarray(image).tobytes()
            item = self._known.get((pixels, example.question, example.choices))
            sure = self._looks and item is not None and item.difficulty < 0.6
            answer = Generation(
                text=item.answer if sure else "yes",
                logprobs=np.asarray([-0.1 if sure else -1.0]) if self._observable else None,
            )
            records.append(Record(example=example, greedy=answer))
        return records


def _gate(report, name):
    return next(gate for gate in report.gates if gate.name == name)


def test_a_model_that_looks_is_told_by_its_gain():
    report = measure_gates(_Reader(), n=N, seed=SEED)
    assert report.n == N
    assert report.accuracy > report.blank + 0.4
    assert _gate(report, "grounded in every type").passed
    assert _gate(report, "harder is worse").passed
    assert report.auroc_within > 0.9
    assert sum(row.n for row in report.types) == N


def test_a_model_that_ignores_its_picture_fails():
    report = measure_gates(_Reader(looks=False), n=N, seed=SEED)
    assert report.accuracy == report.blank == report.shuffled
    assert not _gate(report, "grounded in every type").passed
    assert not report.passed


def test_log_probabilities_are_required():
    with pytest.raises(MissingFeatureError, match="no log-probabilities"):
        measure_gates(_Reader(observable=False), n=30, seed=SEED)
