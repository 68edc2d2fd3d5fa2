"""What a study says of its targets follows from its tables alone."""

import pytest

from sightline.core.estimates import Estimate
from sightline.workflow.studies.few_labels import ON_LABELS, ON_TEST, label_columns
from sightline.workflow.studies.tables import StudyTable
from sightline.workflow.studies.targets import gained, not_below, targets_table


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (Estimate(0.04, 0.01, 0.07), "reached"),
        (Estimate(0.02, 0.01, 0.03), "above zero, short of the target"),
        (Estimate(0.04, -0.01, 0.09), "not reached: no difference shown"),
        (Estimate(-0.04, -0.06, -0.01), "not reached: below zero"),
        (Estimate(None, reason="one class"), "not defined"),
    ],
)
def test_a_gain_must_be_large_enough_and_beyond_chance(figure, verdict):
    assert gained(figure, 0.03) == verdict


def test_only_an_interval_below_zero_is_below():
    assert not_below(Estimate(-0.01, -0.03, 0.01)) == "reached"
    assert not_below(Estimate(-0.02, -0.03, -0.01)) == "not reached: below zero"


def grid(run, within, prr):
    return StudyTable(
        f"harmony-{run}",
        "t",
        "n",
        ("Setting", "Δ within type", "Δ PRR"),
        (("perplexity", None, None), ("default", within, prr)),
    )


def test_the_checkpoint_with_a_prior_asks_for_a_gain_and_the_grounded_one_for_no_loss():
    small = Estimate(0.01, -0.01, 0.02)
    table = targets_table([grid("vlm", small, small), grid("vlm-prior", small, small)])
    verdicts = [str(row[2]) for row in table.rows]
    assert verdicts == ["reached"] * 2 + ["not reached: no difference shown"] * 2


def test_few_labels_count_the_rivals_with_a_larger_error():
    def rows(count, *gaps):
        one = Estimate(0.05, 0.04, 0.06)
        yield (f"{count}: sgpu", "its own", one, None, "its own", one, None, None)
        for name, gap in zip(("von_neumann_entropy", "other"), gaps, strict=True):
            yield (
                f"{count}: {name}",
                *("platt", one, gap),
                *("histogram", one, higher),
                Estimate(0.0, -0.01, 0.01),
            )

    clear, open_ = Estimate(-0.02, -0.03, -0.01), Estimate(-0.01, -0.03, 0.01)
    higher = Estimate(0.02, 0.01, 0.03)
    table = StudyTable(
        "labels-vlm",
        "t",
        "n",
        (
            "Labels: estimator",
            *label_columns(ON_LABELS),
            *label_columns(ON_TEST),
            "Δ AUROC",
        ),
        (*rows("100", clear, open_), *rows("500", clear, higher), *rows("1,000", clear, clear)),
    )
    verdicts = [row[2] for row in targets_table([table]).rows]
    assert verdicts == [
        "reached: lower than 2 of 2 rivals; beyond chance lower than 1 and higher than 0",
        "not reached: lower than 0 of 2 rivals; beyond chance lower than 0 and higher than 2",
        "reached",
        "not reached: lower than 1 of 2 rivals; beyond chance lower than 1 and higher than 1",
        "not reached: lower than 0 of 2 rivals; beyond chance lower than 0 and higher than 2",
        "reached",
    ]


def test_the_stack_of_all_is_held_against_its_closest_rival():
    table = StudyTable(
        "signals-vlm",
        "t",
        "n",
        ("Signals", "All less this, within type"),
        (
            ("probability", Estimate(0.03, 0.01, 0.05)),
            ("all", None),
            ("harmony", Estimate(-0.01, -0.02, 0.01)),
        ),
    )
    ((target, _, verdict),) = targets_table([table]).rows
    assert "(harmony)" in target
    assert verdict == "not reached: no difference shown"
