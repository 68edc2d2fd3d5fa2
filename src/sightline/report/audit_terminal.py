"""An audit in a terminal: flips by type, drift beside its control, verdicts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from rich.table import Table
from rich.text import Text

from sightline.audit.instability import TRUTH_UNKNOWN
from sightline.core.audit_answers import Rates
from sightline.core.audit_results import CONTROL_NAMES, Audit, ChannelDrift, Comparison, Finding
from sightline.core.estimates import Estimate
from sightline.report.numbers import count, counted, inert
from sightline.report.terminal import terminal_console

LINE = 1000


def print_audit(audit: Audit, *, file: TextIO | None = None) -> None:
    """Prints a short summary of one audit.

    Args:
        audit: What to print.
        file: Where to; standard output if None.
    """
    console = terminal_console(file or sys.stdout)
    console.print(Text(inert(f"{audit.model} on {audit.dataset}"), style="bold"))
    console.print(
        Text(
            f"{counted(audit.items, 'question')} on {counted(audit.images, 'picture')} under "
            f"{counted(len(audit.protocol.conditions), 'condition')}"
        )
    )
    partial = None if audit.partial is None else f"partial: {audit.partial}"
    warnings = (partial, *audit.notes, audit.warning, audit.no_energy, audit.no_spectra)
    for line in filter(None, warnings):
        console.print(Text(inert(line, LINE), style="yellow"))
    kinds = by_kind(audit)
    table = Table(box=None, pad_edge=False)
    headings = ["type", "pairs", "IFR", "IV", "R→W", "W→R", "accuracy"]
    for heading in [*headings, *(["drift %", "stays %"] if audit.protocol.channel else [])]:
        table.add_column(heading, justify="left" if heading == "type" else "right")
    for rates in kinds:
        table.add_row(*_row(audit, rates))
    console.print(table)
    for line in _remarks(audit):
        console.print(Text(inert(line, LINE), style="dim"))
    for finding in audit.findings:
        console.print(Text(verdict_line(finding)))


def print_comparison(
    audits: Sequence[Audit], comparison: Comparison, *, file: TextIO | None = None
) -> None:
    """Prints several audits side by side: flip rate by type of perturbation.

    Args:
        audits: At least two.
        comparison: Verdicts on all of them together.
        file: Where to; standard output if None.
    """
    console = terminal_console(file or sys.stdout)
    table = Table(box=None, pad_edge=False)
    table.add_column("flip rate")
    for audit in audits:
        table.add_column(inert(audit.run, 28), justify="right")
    names = {rates.name: row_name(rates) for audit in audits for rates in by_kind(audit)}
    for name, shown in names.items():
        found = [next((r for r in by_kind(a) if r.name == name), None) for a in audits]
        table.add_row(shown, *("—" if r is None else _share(r.ifr) for r in found))
    console.print(table)
    if comparison.unlike is not None:
        console.print(Text(inert(comparison.unlike, LINE)))
    for finding in comparison.findings:
        console.print(Text(verdict_line(finding)))


def by_kind(audit: Audit) -> list[Rates]:
    """Rates of all pairs and of each type of perturbation, single conditions left out."""
    return [rates for rates in audit.rates if rates.name not in audit.protocol.conditions]


def row_name(rates: Rates) -> str:
    """Name of a row, with what is not a change of the picture marked as such."""
    marked = {"injection": " (injection test)", "wording": "", "picture": ""}[rates.part]
    return inert(rates.name, 60) + marked


def flagged_drift(audit: Audit, name: str, *, unchanged: bool = False) -> ChannelDrift | None:
    """Drift of the flagged channel at its last layer beside the control that flags."""
    return next(
        (
            drift
            for drift in audit.drift
            if drift.channel == audit.protocol.channel
            and drift.name == name
            and drift.control == audit.protocol.flag_control
            and drift.unchanged == unchanged
        ),
        None,
    )


def verdict_line(finding: Finding) -> str:
    """A verdict with its figure, n and rule on one line."""
    # A figure that could not be taken says why by itself.
    said = finding.estimate.reason if finding.estimate.value is None else None
    why = "" if finding.reason in (None, said) else f" ({finding.reason})"
    return inert(
        f"{finding.finding}: {finding.outcome}{why}. {finding.estimate!s}, "
        f"n = {count(finding.estimate.n)}; {finding.rule}.",
        LINE,
    )


def _row(audit: Audit, rates: Rates) -> tuple[str, ...]:
    before, after = rates.accuracy_before, rates.accuracy_after
    accuracy = f"{_share(before, ends=False)}→{_share(after, ends=False)}"
    sides = (False, True) if audit.protocol.channel else ()
    drifts = (flagged_drift(audit, rates.name, unchanged=u) for u in sides)
    return (
        row_name(rates),
        count(rates.pairs),
        _share(rates.ifr),
        _share(rates.iv, ends=False),
        _share(rates.lost, ends=False),
        _share(rates.won, ends=False),
        accuracy,
        *(
            "—" if d is None or d.percent.value is None else f"{d.percent.value:.1f}"
            for d in drifts
        ),
    )


def control_name(control: str) -> str:
    """A control in words."""
    return CONTROL_NAMES.get(control, control or "none")


def _remarks(audit: Audit) -> list[str]:
    everything = audit.rates[0]
    lines = ["R→W of answers that were right, W→R of wrong ones"]
    if audit.protocol.channel:
        lines[0] = (
            f"drift %: {audit.protocol.channel} as per cent of the control ("
            f"{control_name(audit.protocol.flag_control)}); stays %: the same where the label "
            f"stayed; {lines[0]}"
        )
    moves = (
        ("R→R", everything.right_right),
        ("R→W", everything.right_wrong),
        ("W→R", everything.wrong_right),
        ("W→W", everything.wrong_wrong),
    )
    if any(n for _, n in moves):
        lines.append("of changed pictures: " + ", ".join(f"{count(n)} {name}" for name, n in moves))
    for skipped in everything.excluded:
        line = f"not counted: {skipped.n} pairs, {skipped.reason}"
        if skipped.reason == TRUTH_UNKNOWN:
            line += f"; {everything.undecided!s} of them flip"
        lines.append(line)
    if audit.protocol.preserving:
        lines.append(
            f"counted since said to keep the answer ({', '.join(audit.protocol.preserving)}): "
            f"{counted(audit.protocol.named_pairs, 'pair')}"
        )
    if audit.visual_entropy.value is not None:
        lines.append(f"visual entropy {audit.visual_entropy!s} nats")
    if everything.margin_flipped.value is not None:
        lines.append(
            f"margin of the clean label, nats: {everything.margin_flipped!s} where it flips, "
            f"{everything.margin_stays!s} where it stays"
        )
    lines += [f"no spectrum: {s.n} questions, {s.reason}" for s in audit.spectra_skipped]
    if audit.moved_far.value is not None:
        lines.append(
            f"{audit.moved_far!s} of the answers that stay moved as far as an unrelated "
            f"picture ({audit.protocol.flag_rule})"
        )
    if audit.prior is not None:
        lines.append(f"{audit.prior.unchanged!s} of the answers are the same without a picture")
    lines += [
        f"free answers by {own.judge}: {own.changed!s} say something else; {own.reworded!s} of "
        "the flips only reword"
        for own in audit.meaning
    ]
    return lines + _yes_no(audit) + _frequencies(audit) + _budgets(audit)


def _yes_no(audit: Audit) -> list[str]:
    """How many of the clean answers yes and no flip, right and wrong ones, by type."""
    lines = []
    for own in audit.yes_no:
        cells = (
            ("right yes", own.hit),
            ("wrong yes", own.false_alarm),
            ("wrong no", own.miss),
            ("right no", own.rejection),
        )
        flips = [
            f"{count(round(share.value * share.n))} of {count(share.n)} {name}"
            for name, share in cells
            if share.value is not None
        ]
        if flips:
            lines.append(f"yes or no under {own.name}, flips: {', '.join(flips)}")
    return lines


def _frequencies(audit: Audit) -> list[str]:
    probes = audit.probes
    if probes is None:
        return []
    filters = [f"{own.flipped} flip under a {own.filtering} pass" for own in probes.filters]
    return [
        f"by frequency, of {probes.questions} questions ({probes.free} answered freely): "
        f"{', '.join(filters)}",
        *(
            f"attack within the {own.band} band: succeeds on {own.success!s}, leakage "
            f"{own.leakage!s}"
            for own in probes.attacks
        ),
        *(f"not probed: {own.n}, {own.reason}" for own in probes.skipped),
    ]


def _budgets(audit: Audit) -> list[str]:
    lines = []
    for own in audit.budgets:
        if not own.steps:
            lines.append(f"budget, {own.target}: nothing could be chosen ({own.reason})")
            continue
        chosen = ", ".join(step.condition for step in own.steps)
        lines.append(
            f"budget, {own.target}: {chosen}; gain on other questions "
            f"{own.steps[-1].held_out!s} nats, with all {own.conditions} {own.everything!s}"
        )
    return lines


def _share(value: Estimate, *, ends: bool = True) -> str:
    if value.value is None:
        return "—"
    if not ends or value.low is None or value.high is None:
        return f"{value.value:.3f}"
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
