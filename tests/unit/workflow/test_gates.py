"""The gates tell a model that reads its picture from one that does not."""

from dataclasses import replace

import numpy as np
import pytest

from sightline.core.errors import MissingFeatureError
from sightline.core.types import Generation, Record
from sightline.data.scenes import generate
from sightline.workflow.gates import measure_split, prior_gate, size_gate, split_gates

N, SEED = 240, 3


class _Reader:
    """Knows the right answer to a question about the picture it belongs to, and only then.

    On the harder pictures it guesses with a lower probability.
    """

    def __init__(self, *, looks=True, observable=True, logprob=-1.0):
        batch = generate("test", -(-N // 3) + N // 20 + 2, SEED, 3)
        self._known = {}
        for item in batch.items[:N]:
            pixels = batch.images[item.picture].tobytes()
            self._known[pixels, item.question, item.choices] = item
        self._looks, self._observable, self._unsure = looks, observable, logprob

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
                logprobs=np.asarray([-0.1 if sure else self._unsure]) if self._observable else None,
            )
            records.append(Record(example=example, greedy=answer))
        return records


def _gate(report, name):
    return next(gate for gate in split_gates(report) if gate.name == f"{name} on test")


def test_a_model_that_looks_is_told_by_its_gain():
    report = measure_split(_Reader(), n=N, seed=SEED)
    assert report.n == N
    assert report.accuracy > report.blank + 0.4
    assert _gate(report, "grounded in every type").passed
    assert _gate(report, "harder is worse").passed
    assert report.auroc_within > 0.9
    assert sum(row.n for row in report.types) == N


def test_a_model_that_ignores_its_picture_fails():
    report = measure_split(_Reader(looks=False), n=N, seed=SEED)
    assert report.accuracy == report.blank == report.shuffled
    assert not _gate(report, "grounded in every type").passed
    assert report.auroc_within is None or report.auroc_within < 0.7


def test_types_that_a_model_is_known_not_to_read_are_left_out_by_name():
    report = measure_split(_Reader(looks=False), n=N, seed=SEED)
    read = max(report.types, key=lambda row: row.gain).question_type
    weak = [row.question_type for row in report.types if row.question_type != read]
    gate = split_gates(report, weak=weak)[1]
    assert gate.name == f"grounded in every type but {', '.join(weak)} on test"
    assert gate.measured.startswith(f"weakest {read} ")


def test_log_probabilities_are_required():
    with pytest.raises(MissingFeatureError, match="no log-probabilities"):
        measure_split(_Reader(observable=False), n=30, seed=SEED)


def test_a_model_that_always_answers_alike_has_no_ranking_to_judge():
    report = measure_split(_Reader(looks=False), n=60, seed=SEED, types=("digit",))
    assert report.accuracy == 0.0
    assert report.auroc_within is None
    assert not _gate(report, "log-probability informs within types").passed
    assert _gate(report, "log-probability informs within types").measured == "not defined"


def test_confident_errors_are_counted_where_the_usual_colour_misleads():
    sure = measure_split(_Reader(looks=False), n=N, seed=SEED)
    assert sure.confident_wrong == sure.confident_wrong_conflict == 0.0  # probability exp(-1)
    bold = measure_split(_Reader(looks=False, logprob=-0.01), n=N, seed=SEED)
    assert bold.confident_wrong == pytest.approx(1 - bold.accuracy)
    assert 0 < bold.confident_wrong_conflict <= 1
    assert prior_gate(bold, sure).passed
    assert not prior_gate(sure, bold).passed


@pytest.mark.parametrize(("size", "passed"), [(5_999_999, True), (6_000_001, False)])
def test_a_model_must_be_small_enough(size, passed):
    assert size_gate(size, 6_000_000).passed is passed


@pytest.mark.parametrize(
    ("quartiles", "passed"),
    [
        ((0.90, 0.85, 0.80, 0.70), True),
        ((0.906, 0.908, 0.798, 0.688), True),  # a rise that 500 questions a quarter cannot tell
        ((0.80, 0.90, 0.80, 0.60), False),  # one that they can
        ((0.90, 0.88, 0.85, 0.80), False),  # too small a fall
    ],
)
def test_accuracy_must_fall_with_difficulty(quartiles, passed):
    report = replace(measure_split(_Reader(), n=N, seed=SEED), n=2000, quartiles=quartiles)
    assert _gate(report, "harder is worse").passed is passed
