"""Tables of audits in the paper's form: flips, transitions, drift beside its controls, spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sightline.core.audit_answers import Rates
from sightline.core.audit_results import CONTROL_NAMES, Audit, Finding
from sightline.core.estimates import Estimate
from sightline.workflow.studies.audit_drift_tables import (
    NOT_OBSERVED,
    drift_tables,
    last_drift,
    types_of,
)
from sightline.workflow.studies.audit_probe_tables import probe_tables
from sightline.workflow.studies.tables import Cell, StudyTable

BANDS = ("low", "middle", "high")


def run_tables(run: str, audit: Audit) -> list[StudyTable]:
    """All tables of one audit.

    Args:
        run: Name of the run.
        audit: Its results.
    """
    tables = [
        _rates(run, audit, single=False),
        _margins(run, audit),
        *drift_tables(run, audit),
        _rates(run, audit, single=True),
        _yes_no(run, audit),
        _yes_no_flips(run, audit),
        _spectra(run, audit),
        *probe_tables(run, audit.probes),
        _budget(run, audit),
    ]
    return [table for table in tables if table.rows]


def findings_table(found: Sequence[tuple[str, Finding]]) -> StudyTable:
    """Every verdict with the figure and the rule that decided it.

    Args:
        found: The runs a verdict is about, and the verdict.
    """
    rows: list[tuple[Cell, ...]] = []
    for runs, finding in found:
        evidence = "; ".join(f"{name}: {value!s}" for name, value in finding.evidence.items())
        rows.append(
            (
                finding.finding,
                runs,
                finding.outcome + ("" if finding.reason is None else f" ({finding.reason})"),
                finding.estimate,
                finding.estimate.n,
                finding.rule,
                evidence,
            )
        )
    return StudyTable(
        key="findings",
        title="The three findings",
        note=(
            "Verdicts are read off the 95 % interval of the figure, by the rule beside it; n is "
            "the number of pairs. Larger models are told from smaller ones by their number of "
            "stored weights."
        ),
        columns=("Finding", "Runs", "Verdict", "Figure", "n", "Rule", "Evidence"),
        rows=tuple(sorted(rows, key=lambda row: str(row[0]))),
    )


def overview_table(audits: Mapping[str, Audit], parameters: Mapping[str, int]) -> StudyTable:
    """The runs side by side.

    Args:
        audits: By run.
        parameters: Stored weights of each run's model.
    """
    rows: list[tuple[Cell, ...]] = []
    for run, audit in audits.items():
        every = audit.rates[0]
        rows.append(
            (
                run,
                f"{parameters[run]:,}",
                audit.items,
                audit.images,
                every.pairs,
                sum(skipped.n for skipped in every.excluded),
                every.accuracy_before,
                every.accuracy_after,
                every.ifr,
                every.iv,
                audit.visual_entropy,
                audit.moved_far,
                NOT_OBSERVED if audit.prior is None else audit.prior.unchanged,
                NOT_OBSERVED if audit.prior is None else audit.prior.accuracy_blank,
                NOT_OBSERVED if audit.prior is None else audit.prior.accuracy_gain,
                *(audit.energy_correlations.get(name) for name in _correlations(audits)),
            )
        )
    return StudyTable(
        key="overview",
        title="The runs side by side",
        note=(
            "All perturbations of the picture together. Left out: pairs whose right answer "
            "changes, or may. Entropy in nats, of a question's labels over all its pictures. "
            "Moved far: share of the answers that stay whose representation moved as far as an "
            "unrelated picture. Blank: share of questions answered alike without the picture. "
            "Accuracy without the picture, and what the picture adds to it: of the questions "
            "whose label is read off scores. ΔE and …: Pearson's correlation of the change of the "
            "vision tokens' normalised energy."
        ),
        columns=(
            "Run", "Parameters", "Questions", "Pictures", "Pairs", "Left out", "Accuracy before",
            "Accuracy after", "IFR", "IV", "Visual entropy", "Moved far", "Blank",
            "Accuracy without the picture", "Accuracy, gain by the picture",
            *(f"ΔE and {name}" for name in _correlations(audits)),
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _correlations(audits: Mapping[str, Audit]) -> list[str]:
    return list(dict.fromkeys(name for a in audits.values() for name in a.energy_correlations))


def _rates(run: str, audit: Audit, *, single: bool) -> StudyTable:
    """By type of perturbation, or by single condition with its drift."""
    rows: list[tuple[Cell, ...]] = []
    for rates in audit.rates:
        if (rates.name in audit.protocol.conditions) is not single:
            continue
        rows.append((rates.name, rates.pairs, *_moves(rates), *_flagged(audit, rates.name)))
    protocol = audit.protocol
    control = CONTROL_NAMES.get(protocol.flag_control, "none")
    which = "Single conditions" if single else "Types of perturbation"
    return StudyTable(
        key=f"{'levels' if single else 'rates'}-{run}",
        title=f"{which} on {run}",
        note=(
            "IFR: flipped pairs over pairs; IV: questions with a flip over questions; R→W of "
            "answers that were right, W→R of those that were wrong; Δ margin in nats. Drift %: "
            f"1 − cosine of {protocol.channel} as per cent of the control ({control}), over "
            "the pairs and over those that keep their answer. Intervals resample pictures. "
            "Wording changes the question alone and is not among 'all'."
        ),
        columns=(
            "Condition" if single else "Type", "Pairs", "IFR", "IV", "R→W", "W→R",
            "Accuracy before", "Accuracy after", "Δ margin", "ΔE", "Drift to prior", "Drift %",
            "Drift % where the answer stays",
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _moves(rates: Rates) -> tuple[Estimate, ...]:
    return (
        rates.ifr,
        rates.iv,
        rates.lost,
        rates.won,
        rates.accuracy_before,
        rates.accuracy_after,
        rates.margin_change,
        rates.energy_change,
        rates.prior_index,
    )


def _flagged(audit: Audit, name: str) -> tuple[Estimate, ...]:
    found = []
    for unchanged in (False, True):
        drift = last_drift(audit, audit.protocol.channel, name, unchanged=unchanged)
        found.append(NOT_OBSERVED if drift is None else drift.percent)
    return tuple(found)


def _margins(run: str, audit: Audit) -> StudyTable:
    """How sure the label was that flips, and the one that stays."""
    names = set(types_of(audit))
    return StudyTable(
        key=f"margins-{run}",
        title=f"Margins on {run}",
        note=(
            "Of answers chosen among options, yes and no included: the label's score less that of "
            "the best other, nats. Δ: under perturbation less before, over pairs. Flips, stays: "
            "the clean label's margin under perturbation, mean over questions of their pairs that "
            "flip, and of those that stay. Δ score: of the clean answer's log-probability, free "
            "answers too."
        ),
        columns=(
            "Type", "Δ margin", "Δ margin of the right option", "Margin, flips", "Margin, stays",
            "Δ score",
        ),
        rows=tuple(
            (
                own.name,
                own.margin_change,
                own.margin_true_change,
                own.margin_flipped,
                own.margin_stays,
                own.score_change,
            )
            for own in audit.rates
            if own.name in names
        ),
    )  # fmt: skip


def _yes_no(run: str, audit: Audit) -> StudyTable:
    return StudyTable(
        key=f"yes-no-{run}",
        title=f"Questions answered by yes or no on {run}",
        note="Yes is the positive class; pairs whose right answer may change are left out.",
        columns=(
            "Type", "n", "Accuracy", "Precision", "Recall", "F1", "False positives", "Says yes",
        ),
        rows=tuple(
            (
                own.name,
                own.n,
                own.accuracy,
                own.precision,
                own.recall,
                own.f1,
                own.false_positive_rate,
                own.yes_rate,
            )
            for own in audit.yes_no
        ),
    )  # fmt: skip


def _yes_no_flips(run: str, audit: Audit) -> StudyTable:
    """Margins of yes, and which of four kinds of clean answer flip."""
    return StudyTable(
        key=f"yes-no-flips-{run}",
        title=f"Flips of yes and no on {run}",
        note=(
            "Margin: score of yes less that of no, nats; of flips and of answers that stay as mean "
            "over questions. Then the share that flips of clean answers yes that are right (hits) "
            "and wrong (false alarms), and no that are wrong (misses) and right (rejections), each "
            "with the number of such answers."
        ),
        columns=(
            "Type", "Margin", "Margin, flips", "Margin, stays",
            *(part for name in ("Hits", "False alarms", "Misses", "Rejections")
              for part in (name, f"n of {name.lower()}")),
        ),
        rows=tuple(
            (
                own.name,
                own.margin,
                own.margin_flipped,
                own.margin_stays,
                *(
                    cell
                    for share in (own.hit, own.false_alarm, own.miss, own.rejection)
                    for cell in (share, share.n)
                ),
            )
            for own in audit.yes_no
        ),
    )  # fmt: skip


def _spectra(run: str, audit: Audit) -> StudyTable:
    rows: list[tuple[Cell, ...]] = []
    for own in audit.spectra:
        flips = own.shares_of_flips or (None,) * len(BANDS)
        cells = (*own.shares, *flips, *own.coherence)
        rows.append((own.name, own.pictures, *(None if c is None else f"{c:.3f}" for c in cells)))
    return StudyTable(
        key=f"spectra-{run}",
        title=f"Frequencies that perturbations change on {run}",
        note=(
            "Share of each band in the change of the pixels, over all rendered pairs and over "
            "those that flip; coherence of clean and perturbed picture."
        ),
        columns=(
            "Type", "Pairs", *BANDS, *(f"{band}, flips" for band in BANDS),
            *(f"{band}, coherence" for band in BANDS),
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _budget(run: str, audit: Audit) -> StudyTable:
    """What the first perturbations of a budget give on pictures that did not choose them."""
    rows: list[tuple[Cell, ...]] = []
    for budget in audit.budgets:
        head = f"{budget.target} ({budget.share:.3f} of {budget.questions:,})"
        rows += [
            (
                f"{head}: first {number}",
                step.condition,
                f"{step.gain:.4f}",
                step.held_out,
                f"{step.folds} of {budget.parts}",
            )
            for number, step in enumerate(budget.steps, start=1)
        ]
        last = "all conditions" if budget.reason is None else budget.reason
        rows.append((f"{head}: all {budget.conditions}", last, None, budget.everything, None))
    return StudyTable(
        key=f"budget-{run}",
        title=f"The most informative perturbations on {run}",
        note=(
            "Chosen one by one by a logistic model's cross-validated loss. Gain: how much each "
            "lowers it on the questions that chose it, in nats a question. Elsewhere: what as "
            "many perturbations gain over none on pictures that chose others, by nested "
            "cross-validation; chosen again: in how many parts the condition is among as many."
        ),
        columns=("Target", "Condition", "Gain", "Elsewhere", "Chosen again"),
        rows=tuple(rows),
    )
