"""Recorded outputs of real models give the figures that their description states, to its digits.

The files lie beside the repository; they are nobody's work here. Figures are of the raw scores on
all rows, as an evaluation states them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sightline.core.column import ColumnKind
from sightline.core.condition_names import CLEAN
from sightline.core.features import Feature
from sightline.core.records import link
from sightline.core.results import Evaluation
from sightline.core.types import Record
from sightline.estimators import ESTIMATORS
from sightline.grading import GRADERS, grade_records
from sightline.metrics import METRICS
from sightline.store.importers import import_runs
from sightline.store.run import RunStore
from sightline.workflow.evaluate import Settings, evaluate

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data beside the repository")


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory):
    """Runs of one file by model, imported once."""
    done: dict[str, dict[str, RunStore]] = {}

    def of(name: str) -> dict[str, RunStore]:
        if name not in done:
            runs = import_runs(DATA / name, tmp_path_factory.mktemp("runs"))
            stores = [RunStore.open(run) for run in runs]
            done[name] = {str(store.manifest.model["name"]): store for store in stores}
        return done[name]

    return of


def judged(
    store: RunStore, others: Sequence[Sequence[Record]] = ()
) -> tuple[list[Record], np.ndarray]:
    """Linked clean records and their recorded correctness."""
    records = link(list(store.records()), condition=CLEAN, other_runs=others)
    column = store.column(ColumnKind.CORRECT, "recorded")
    correct = dict(zip(column.keys, column.values.tolist(), strict=True))
    return records, np.array([correct[record.key] for record in records])


def metric(name: str, estimator: str, records: list[Record], correct: np.ndarray) -> float:
    confidence = 1.0 - ESTIMATORS[estimator].uncertainty(records)
    return METRICS[name].function(confidence, correct)


def evaluated(store: RunStore, *estimators: str) -> Evaluation:
    """What ``sightline evaluate`` writes, with few resamples: raw figures need none."""
    settings = Settings(estimators=estimators, seeds=1, resamples=100)
    return evaluate(store.path, settings).evaluation


ENSEC = [
    ("ensec_mmbench.jsonl", "llava-v1.5-7b", 2223, ".7184", ".8540", ".0935"),
    ("ensec_mmbench.jsonl", "Qwen-VL-Chat", 2223, ".7081", ".8507", ".0288"),
    ("ensec_mmbench.jsonl", "MobileVLM_V2-3B", 2223, ".7260", ".8217", ".0870"),
    ("ensec_mmbench.jsonl", "mplug-owl2-llama2-7b", 2223, ".7229", ".8856", ".1130"),
    ("ensec_oodcv.jsonl", "llava-v1.5-7b", 1406, ".6842", ".8050", ".0511"),
    ("ensec_oodcv.jsonl", "Monkey-Chat", 1406, ".7205", ".6875", ".1186"),
    ("ensec_oodcv.jsonl", "internlm-xcomposer2-vl-7b", 1406, ".7084", ".7764", ".0222"),
    ("ensec_oodcv.jsonl", "MobileVLM-1.7B", 1406, ".2916", ".6782", ".2256"),
]


@pytest.mark.parametrize(("file", "model", "rows", "accuracy", "auroc", "ece"), ENSEC)
def test_option_probabilities(imported, file, model, rows, accuracy, auroc, ece) -> None:
    store = imported(file)[model]
    records, correct = judged(store)
    assert len(records) == rows
    assert store.rejected() == []
    assert f"{correct.mean():.4f}"[1:] == accuracy
    estimators = ("choice_max_probability", "recorded_confidence")
    measured = evaluated(store, *estimators)
    assert f"{measured.accuracy.value:.4f}"[1:] == accuracy
    assert {e.name for e in measured.estimators} == set(estimators)
    for result in measured.estimators:
        assert result.raw["auroc"].n == rows
        assert f"{result.raw['auroc'].value:.4f}"[1:] == auroc
        assert f"{result.raw['ece'].value:.4f}"[1:] == ece


@pytest.mark.parametrize("file", ["ensec_mmbench.jsonl", "ensec_oodcv.jsonl"])
def test_our_grade_by_letter_equals_the_recorded_one(imported, file) -> None:
    for store in imported(file).values():
        records, correct = judged(store)
        column, ungraded = grade_records(records, GRADERS["auto"])
        assert ungraded == []
        np.testing.assert_array_equal(column.values, correct)


def test_rotations_share_a_group(imported) -> None:
    records, _ = judged(imported("ensec_mmbench.jsonl")["llava-v1.5-7b"])
    assert len({record.example.group for record in records}) == 600
    rotated = sum(record.has(Feature.ROTATIONS) for record in records)
    assert rotated > 1500


@pytest.mark.parametrize(
    ("model", "accuracy", "auroc"),
    [
        ("llava-hf/llava-v1.6-mistral-7b-hf", ".60", ".580"),
        ("microsoft/Phi-4-multimodal-instruct", ".68", ".599"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", ".95", ".615"),
    ],
)
def test_agreement_over_festas_conditions(imported, model, accuracy, auroc) -> None:
    store = imported("festa_vsr_samples.jsonl")[model]
    records, correct = judged(store)
    assert len(records) == 100
    assert f"{correct.mean():.2f}"[1:] == accuracy
    assert all(len(record.related.views) == 56 for record in records)
    assert all(len(view.samples) == 10 for record in records for view in record.related.views)
    assert all(len(record.related.negations) == 57 for record in records)
    (agreement,) = evaluated(store, "condition_agreement").estimators
    assert f"{agreement.raw['auroc'].value:.3f}"[1:] == auroc
    negated = metric("auroc", "condition_and_negation_consistency", records, correct)
    assert 0.755 <= negated <= 0.935


def auroc_range(figures: list[float]) -> tuple[str, str]:
    return f"{min(figures):.2f}"[1:], f"{max(figures):.2f}"[1:]


@pytest.mark.slow
def test_cross_model_agreement_of_blink(imported) -> None:
    runs = imported("blink_multimodel.jsonl")
    assert len(runs) == 13
    answers = {model: list(store.records()) for model, store in runs.items()}
    ours, literal, accuracies = [], [], []
    for model, store in runs.items():
        records, correct = judged(store, [a for name, a in answers.items() if name != model])
        assert len(records) == 982
        assert all(len(record.related.models) == 12 for record in records)
        same = [
            sum(other.answer.text == record.answer.text for other in record.related.models)
            for record in records
        ]
        ours.append(metric("auroc", "model_agreement", records, correct))
        literal.append(METRICS["auroc"].function(np.array(same, dtype=float), correct))
        accuracies.append(float(correct.mean()))
    assert auroc_range(accuracies) == (".34", ".46")
    assert auroc_range(literal) == (".58", ".72")
    # Ours reads the letter of the six answers like "B) the third"
    np.testing.assert_allclose(ours, literal, atol=0.002)


def test_agreement_over_docvlms_image_versions(imported) -> None:
    runs = imported("docvlm_images.jsonl")
    assert len(runs) == 3
    ours, literal, accuracies = [], [], []
    for store in runs.values():
        records, correct = judged(store)
        assert len(records) == 295
        assert len({record.example.group for record in records}) == 59
        assert len({record.example.question_type for record in records}) == 5
        assert all(len(record.example.images) == 1 for record in records)
        root = Path(store.manifest.image_root)
        assert all((root / record.example.images[0].path).is_file() for record in records)
        assert all(len(record.related.views) == 5 for record in records)
        same = [
            sum(view.answer.text == record.answer.text for view in record.related.views)
            for record in records
        ]
        ours.append(metric("auroc", "condition_agreement", records, correct))
        literal.append(METRICS["auroc"].function(np.array(same, dtype=float), correct))
        accuracies.append(float(correct.mean()))
    assert auroc_range(accuracies) == (".49", ".57")
    assert auroc_range(literal) == (".95", ".99")
    # Ours counts "54 and Evidence: ..." in two wordings as the same number; the recorded
    # correctness calls such an answer wrong
    np.testing.assert_allclose(ours, literal, atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows"), [("ensec_mmbench", 2223), ("ensec_oodcv", 1406)], ids=["mmbench", "oodcv"]
)
def test_logits_of_26_models(imported, name, rows) -> None:
    runs = imported(f"{name}_all26models_logits.npz")
    assert len(runs) == 26
    for model, store in imported(f"{name}.jsonl").items():
        records, correct = judged(store)
        same = {record.example.id: record for record in runs[model].records()}
        assert len(same) == rows
        column, ungraded = grade_records(same.values(), GRADERS["auto"])
        assert ungraded == []
        by_id = {
            key.example_id: value for key, value in zip(column.keys, column.values, strict=True)
        }
        again = [by_id[record.example.id.split("-")[1]] for record in records]
        assert np.mean(np.array(again) == correct) > 0.99  # half precision moves a few ties
    if name == "ensec_oodcv":
        monkey = list(runs["Monkey"].records())
        correct = grade_records(monkey, GRADERS["auto"])[0].values
        assert f"{metric('auroc', 'choice_max_probability', monkey, correct):.2f}" == "0.41"
