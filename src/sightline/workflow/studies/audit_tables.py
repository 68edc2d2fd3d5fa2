"""Tables of audits in the paper's form: flips, transitions, drift beside its controls, spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sightline.core.audit_answers import Rates
from sightline.core.audit_results import Audit, ChannelDrift, Finding
from sightline.core.estimates import Estimate
from sightline.workflow.studies.tables import Cell, StudyTable

ALL = "all"
CONTROLS = ("other_images", "other_items", "paraphrases")
BANDS = ("low", "middle", "high")
NOT_OBSERVED = Estimate(None, n=0, reason="not observed")


def run_tables(run: str, audit: Audit) -> list[StudyTable]:
    """All tables of one audit.

    Args:
        run: Name of the run.
        audit: Its results.
    """
    tables = [
        _rates(run, audit, single=False),
        _drift(run, audit),
        _conditional(run, audit),
        _controls(run, audit),
        _layers(run, audit),
        _rates(run, audit, single=True),
        _yes_no(run, audit),
        _spectra(run, audit),
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
            "unrelated picture. Blank: share of questions answered alike without the picture. ΔE "
            "and …: Pearson's correlation of the change of the vision tokens' normalised energy."
        ),
        columns=(
            "Run", "Parameters", "Questions", "Pictures", "Pairs", "Left out", "Accuracy before",
            "Accuracy after", "IFR", "IV", "Visual entropy", "Moved far", "Blank",
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
    which = "Single conditions" if single else "Types of perturbation"
    return StudyTable(
        key=f"{'levels' if single else 'rates'}-{run}",
        title=f"{which} on {run}",
        note=(
            "IFR: flipped pairs over pairs; IV: questions with a flip over questions; R→W of "
            "answers that were right, W→R of those that were wrong; Δ margin in nats. Drift %: "
            f"1 − cosine of {protocol.channel} as per cent of that between {protocol.flag_control}"
            ", over the pairs and over those that keep their answer. Intervals resample "
            "pictures. Wording changes the question alone and is not among 'all'."
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
        drift = _last(audit, audit.protocol.channel, name, unchanged=unchanged)
        found.append(NOT_OBSERVED if drift is None else drift.percent)
    return tuple(found)


def _drift(run: str, audit: Audit) -> StudyTable:
    """Per cent of the control ± its spread, with Cohen's d, by type and channel."""
    return StudyTable(
        key=f"drift-{run}",
        title=f"Drift by channel on {run}",
        note=(
            "Last layer; 1 − cosine as per cent of the control ± the spread over questions as "
            "per cent of the same, with Cohen's d of drift less control. All pairs that count, "
            "whatever the answer. Control of each channel: the same question about another picture "
            "where it is asked often enough, else another question."
        ),
        columns=("Type", *_channels(audit)),
        rows=tuple(
            (name, *(_paper_form(_last(audit, c, name)) for c in _channels(audit)))
            for name in _types(audit)
        ),
    )


def _conditional(run: str, audit: Audit) -> StudyTable:
    return StudyTable(
        key=f"unchanged-{run}",
        title=f"Drift behind answers that stay on {run}",
        note=(
            "As above, of pairs that count and keep their answer, as per cent of the control with "
            "an interval over pictures."
        ),
        columns=("Type", *_channels(audit)),
        rows=tuple(
            (
                name,
                *(
                    NOT_OBSERVED if drift is None else drift.percent
                    for drift in (
                        _last(audit, channel, name, unchanged=True) for channel in _channels(audit)
                    )
                ),
            )
            for name in _types(audit)
            if any(
                d.name == name and d.unchanged and d.drift.value is not None for d in audit.drift
            )
        ),
    )


def _controls(run: str, audit: Audit) -> StudyTable:
    """Every channel beside all three controls."""
    rows: list[tuple[Cell, ...]] = []
    for channel in _channels(audit):
        own = [d for d in audit.drift if (d.channel, d.name) == (channel, ALL) and not d.unchanged]
        last = own[0].layer
        cells: list[Cell] = [own[0].drift]
        for control in CONTROLS:
            drift = next((d for d in own if (d.control, d.layer) == (control, last)), None)
            found = (NOT_OBSERVED,) * 3
            if drift is not None:
                found = (drift.control_drift, drift.percent, drift.cohens_d)
            cells += found
        rows.append((channel, *cells))
    return StudyTable(
        key=f"controls-{run}",
        title=f"Three controls on {run}",
        note=(
            "Drift at the last layer over all perturbations of the picture, beside the same "
            "question about another picture (other_images), another question about another "
            "picture (other_items), and the same question about the same picture in other words "
            "(paraphrases)."
        ),
        columns=(
            "Channel",
            "1 − cosine",
            *(part for c in CONTROLS for part in (c, f"% of {c}", f"d to {c}")),
        ),
        rows=tuple(rows),
    )


def _layers(run: str, audit: Audit) -> StudyTable:
    layers = list(audit.protocol.layers)
    rows: list[tuple[Cell, ...]] = []
    for channel in _channels(audit):
        own = {
            d.layer: d.percent
            for d in audit.drift
            if (d.channel, d.name) == (channel, ALL) and d.unchanged
        }
        if None not in own:
            rows.append((channel, *(own.get(layer, NOT_OBSERVED) for layer in layers)))
    return StudyTable(
        key=f"layers-{run}",
        title=f"Drift by layer on {run}",
        note="Pairs that keep their answer, over all perturbations, as per cent of the control.",
        columns=("Channel", *(f"layer {layer}" for layer in layers)),
        rows=tuple(rows),
    )


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


def _types(audit: Audit) -> list[str]:
    singles = set(audit.protocol.conditions)
    return [rates.name for rates in audit.rates if rates.name not in singles]


def _channels(audit: Audit) -> list[str]:
    return list(dict.fromkeys(drift.channel for drift in audit.drift))


def _last(audit: Audit, channel: str, name: str, *, unchanged: bool = False) -> ChannelDrift | None:
    """Drift of a channel at its last layer beside its main control."""
    own = [d for d in audit.drift if (d.channel, d.name) == (channel, name)]
    main = next((d.control for d in own if d.unchanged), None)
    return next((d for d in own if d.control == main and d.unchanged is unchanged), None)


def _paper_form(drift: ChannelDrift | None) -> str:
    if drift is None or drift.percent.value is None:
        return "—"
    spread = "" if drift.percent_sd is None else f" ± {drift.percent_sd:.1f}"
    d = "" if drift.cohens_d.value is None else f" (d {drift.cohens_d.value:.2f})"
    return f"{drift.percent.value:.1f}{spread}{d}"
