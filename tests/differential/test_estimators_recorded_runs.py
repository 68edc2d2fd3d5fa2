"""Estimators on recorded answers of real models, against the figures published with the data."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sightline.core.features import Feature
from sightline.core.records import link
from sightline.core.types import Example, Generation, Record
from sightline.estimators import ESTIMATORS

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"recorded outputs are not at {DATA}")


LETTERS = {"VSR (FESTA subset)": "AB", "MMBench-dev": "ABCDEF", "OODCV-VQA": "ABCDEF"}


def rows_by_model(name):
    rows = defaultdict(list)
    with (DATA / name).open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            rows[row["model"]].append(row)
    return rows


def example(row):
    return Example(
        row["id"],
        row["question"],
        choices=tuple(row["choices"].get(letter, "") for letter in LETTERS[row["dataset"]]),
        group=row["group_id"],
    )


def auroc(name, records, rows):
    return roc_auc_score([r["correct"] for r in rows], -ESTIMATORS[name].uncertainty(records))


@needs_data
def test_agreement_over_conditions_reproduces_the_published_auroc():
    got, negation, both = {}, {}, {}
    letter = {name: Generation(name) for name in "AB"}
    for model, rows in rows_by_model("festa_vsr_samples.jsonl").items():
        records = []
        for row in rows:
            of = example(row)
            records.append(Record(of, greedy=Generation(row["answer"])))
            for kind, prefix in (("samples", ""), ("samples_complement", "negated+")):
                draws = np.reshape(row[kind], (56, 10))
                records += [
                    Record(of, f"{prefix}cell:{i}", samples=tuple(letter[a] for a in cell))
                    for i, cell in enumerate(draws.tolist())
                ]
        linked = link(records, condition="clean")
        key = model.split("/")[-1][:4]
        got[key] = round(auroc("condition_agreement", linked, rows), 3)
        negation[key] = auroc("negation_consistency", linked, rows)
        both[key] = auroc("condition_and_negation_consistency", linked, rows)
    assert got == {"llav": 0.58, "Phi-": 0.599, "Qwen": 0.615}
    assert all(both[key] > got[key] + 0.15 for key in got)
    assert all(negation[key] > got[key] for key in got)


@needs_data
@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (
            "ensec_mmbench.jsonl",
            {
                "llava-v1.5-7b": (0.8540, 0.0935),
                "Qwen-VL-Chat": (0.8507, 0.0288),
                "MobileVLM_V2-3B": (0.8217, 0.0870),
                "mplug-owl2-llama2-7b": (0.8856, 0.1130),
            },
        ),
        (
            "ensec_oodcv.jsonl",
            {
                "llava-v1.5-7b": (0.8050, 0.0511),
                "Monkey-Chat": (0.6875, 0.1186),
                "internlm-xcomposer2-vl-7b": (0.7764, 0.0222),
                "MobileVLM-1.7B": (0.6782, 0.2256),
            },
        ),
    ],
)
def test_max_probability_reproduces_the_published_auroc_and_ece(file, expected):
    for model, rows in rows_by_model(file).items():
        records = [
            Record(
                example(row),
                greedy=Generation(row["answer"]),
                features={Feature.LETTER_LOGPROBS: np.array(row["choice_logits"])},
            )
            for row in rows
        ]
        confidence = 1 - ESTIMATORS["choice_max_probability"].uncertainty(records)
        correct = np.array([row["correct"] for row in rows], dtype=float)
        inside = np.clip(np.ceil(confidence * 10).astype(int) - 1, 0, 9)
        gap = np.bincount(inside, correct - confidence, 10)
        figures = (roc_auc_score(correct, confidence), np.abs(gap).sum() / len(rows))
        np.testing.assert_allclose(figures, expected[model], atol=6e-5)
        # The recorded answer is the most probable letter, so both readings agree.
        answered = 1 - ESTIMATORS["choice_answer_probability"].uncertainty(records)
        np.testing.assert_allclose(answered, confidence, atol=1e-12)


@needs_data
def test_rotation_agreement_ranks_real_answers():
    for rows in list(rows_by_model("ensec_mmbench.jsonl").values())[:2]:
        linked = link(
            [Record(example(r), greedy=Generation(r["answer"])) for r in rows], condition="clean"
        )
        seen = [i for i, record in enumerate(linked) if record.has(Feature.ROTATIONS)]
        assert len(seen) > 0.8 * len(rows)
        value = auroc("rotation_agreement", [linked[i] for i in seen], [rows[i] for i in seen])
        assert value > 0.7


@needs_data
def test_agreement_over_models_lies_in_the_published_range():
    by_model = rows_by_model("blink_multimodel.jsonl")

    def run(rows):
        of = [Example(r["id"], r["question"], references=("A",)) for r in rows]
        answers = [Generation(r["answer"] or "") for r in rows]
        return [Record(e, greedy=a) for e, a in zip(of, answers, strict=True)]

    runs = {model: run(rows) for model, rows in by_model.items()}
    assert len(runs) == 13
    for model in list(runs)[::3]:
        others = [runs[name] for name in runs if name != model]
        linked = link(runs[model], condition="clean", other_runs=others)
        assert 0.575 < auroc("model_agreement", linked, by_model[model]) < 0.725
