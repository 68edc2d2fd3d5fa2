"""sightline audit."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.collect_options import (
    announce,
    collect_settings,
    conditions_option,
    size_options,
    source_options,
)
from sightline.cli.display import ProgressLine, Stop, stop_on_signal
from sightline.cli.options import (
    loading_options,
    loading_settings,
    option,
    seed_option,
    shared_options,
    show_config,
)
from sightline.core.errors import SightlineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sightline.workflow.auditing.running import AuditOutcome, AuditSettings
    from sightline.workflow.collect import CollectResult


@click.command("audit")
@click.argument("runs", nargs=-1, type=click.Path(file_okay=False))
@source_options(
    required=False,
    model="Collect this model first: as for 'sightline collect'.",
    data="The questions and pictures to collect it on.",
    output="The run directory that is collected; one that exists is gone on with.",
)
@conditions_option(
    "Perturbations, as for 'sightline collect'; wordings are the paraphrase control.",
    default="default,wording:1,wording:2",
)
@size_options(layers="Depths whose states are compared: fractions or layer indices.")
@option(
    "--channel",
    help="What flags single answers, at its last layer: ctx_open (the default), ctx_mcq, "
    "ans_open, ans_mcq, ans_mcq_free, ans_fixed, vision_encoded or vision_projected.",
)
@option(
    "--control-items",
    default=600,
    type=click.IntRange(2),
    help="Questions that controls are drawn among.",
)
@option("--controls", default=25, type=click.IntRange(1), help="Partners of each.")
@option(
    "--spectra",
    default=32,
    type=click.IntRange(0),
    help="Questions whose perturbations are measured by frequency.",
)
@option(
    "--probe",
    default=0,
    type=click.IntRange(0),
    help="Questions whose frequencies are probed (filters, noise, attacks): asks the model again, "
    "with gradients; goes on where it stopped.",
)
@option(
    "--budget",
    default=0,
    type=click.IntRange(0),
    help="Choose as many conditions as the most informative, and measure them on other questions.",
)
@option(
    "--geometry",
    is_flag=True,
    help="Compare the geometry of all questions (CKA) in every channel and layer, which reads the "
    "run again.",
)
@option(
    "--preserving",
    metavar="NAMES|FILE.yaml",
    help="Conditions that keep the right answer of your questions, where that is not known "
    "(docs/perturbations.md): their pairs count. Named as for --conditions; kept in the audit.",
)
@option("--entailment", help="Entailment model that compares free answers by meaning.")
@option("--resamples", default=1000, type=click.IntRange(100), help="Bootstrap resamples.")
@option("--sizes", metavar="N,N,…", help="Parameters of the runs' models, to compare them.")
@option(
    "--against",
    type=click.Path(file_okay=False),
    help="Audited run of the same model on other questions: do perturbations act otherwise there?",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False),
    help="The HTML page.  [default: audit/report.html of the run; of several runs "
    "audit/comparison.html of the first]",
)
@seed_option("Seed of collecting, controls and bootstrap.")
@loading_options
@shared_options
@click.pass_context
def audit_command(ctx: click.Context, /, **flags: Any) -> int:
    """Change the pictures, and see whether answers and representations hold.

    \b
    sightline audit -m ./llava-1.5-7b-hf -d questions.jsonl --images ./photos -o runs/a
    sightline audit runs/a runs/b
    sightline audit runs/a --probe 20 --budget 3
    sightline audit runs/reasoning --against runs/hallucination

    Several runs are measured alike, by the settings given here. Those that were audited before keep
    their audit and report: only the page is written.
    """  # noqa: D301 (a backspace, which click reads)
    if flags["show_config"]:
        show_config(ctx)
        return 0
    _require_one_way(flags)
    from sightline.data.condition_lists import read_conditions
    from sightline.workflow.auditing.running import AuditSettings
    from sightline.workflow.auditing.writing import RESULTS

    preserving = () if flags["preserving"] is None else read_conditions(flags["preserving"])
    measured = [*flags["runs"], *([] if flags["against"] is None else [flags["against"]])]
    _require_runs(measured, flags)
    beside = int(flags["data"] is not None) + len(flags["runs"])
    sizes = None if flags["sizes"] is None else _sizes(flags["sizes"], beside)
    settings = AuditSettings(
        channel=flags["channel"],
        control_items=flags["control_items"],
        controls=flags["controls"],
        spectra=flags["spectra"],
        budget=flags["budget"],
        geometry=flags["geometry"],
        preserving=tuple(condition.name for condition in preserving),
        resamples=flags["resamples"],
        seed=flags["seed"],
    )
    found: list[AuditOutcome] = []
    together = beside + int(flags["against"] is not None) > 1
    kept = [run for run in measured if together and (Path(run) / RESULTS).exists()]
    code = 0
    if flags["data"] is not None:
        outcome, code = _collected(flags, settings)
        if outcome is None:
            return code
        found.append(outcome)
    for run in measured:
        outcome, stopped = _measured(run, flags, settings, keep=together)
        if outcome is None:
            return stopped
        found.append(outcome)
    for run in kept:
        click.echo(f"{Path(run) / RESULTS} is of an earlier audit, and stays as it is.", err=True)
    _show(found, flags, settings, sizes)
    return code


def _require_runs(runs: list[str], flags: dict[str, Any]) -> None:
    """Refuses runs that cannot be audited before anything is collected or measured."""
    from sightline.workflow.auditing.pairs import require_perturbed
    from sightline.workflow.classifying.reading import open_answers

    models: list[Mapping[str, Any]] = []
    for run in runs:
        store = open_answers(Path(run))
        require_perturbed(store)
        models.append(store.manifest.model)
    others = [*flags["runs"], *([] if flags["output"] is None else [flags["output"]])]
    against = flags["against"]
    if against is not None and Path(against).resolve() in {Path(own).resolve() for own in others}:
        raise UsageError(
            f"--against {against}, which is the audited run itself; a run of the same model on "
            "other questions is required. Collect the model on the other questions."
        )
    if against is not None:
        _require_one_model(models, flags)


def _require_one_model(models: list[Mapping[str, Any]], flags: dict[str, Any]) -> None:
    """Refuses a run to hold others against that is of another model, as far as files tell."""
    from sightline.models import files_hash
    from sightline.workflow.auditing.comparing import require_one_model

    *own, other = models
    if flags["data"] is not None:
        found = files_hash(flags["model"], **loading_settings(flags))
        own += [] if found is None else [{"name": flags["model"], "files_xxh3": found}]
    for model in own:
        require_one_model(model, other)


def _require_one_way(flags: dict[str, Any]) -> None:
    """Either runs that are there, or a model with data and a place to collect it."""
    model, runs = flags["model"] is not None, flags["runs"]
    given = [flags[name] is not None for name in ("data", "output")]
    collects = model and (any(given) or not runs)
    if collects and (runs or not all(given)):
        raise UsageError(
            "--model without --data and --output-path, or beside runs that are there; a model is "
            "collected on data into one directory. Give -m, -d and -o, or runs alone."
        )
    if not collects and (not runs or any(given)):
        raise UsageError(
            "No run to audit, or --data and --output-path without a model; runs, or a model with "
            "data, are required. Give runs, or -m, -d and -o."
        )
    if not collects and model and not flags["probe"]:
        raise UsageError(
            "--model beside runs, and nothing to ask it; a model is asked again only to probe "
            "frequencies. Add --probe, or leave the model out."
        )


def _measured(
    run: str, flags: dict[str, Any], settings: AuditSettings, *, keep: bool
) -> tuple[AuditOutcome | None, int]:
    """A run that is there, probed first where that is asked for."""
    from sightline.api import audit

    first = "probing" if flags["probe"] else "reading"
    with ProgressLine(first, flags["display"]) as line, stop_on_signal() as stop:
        model = flags["model"] if flags["probe"] else None
        asked = _asked(flags, line, stop)
        outcome, _ = audit(
            run,
            model=model,
            settings=settings,
            keep=keep,
            measuring=lambda: line.start(f"measuring {Path(run).name}"),
            **asked,
        )
    return outcome, 0 if outcome is not None else _stopped(stop)


def _collected(flags: dict[str, Any], settings: AuditSettings) -> tuple[AuditOutcome | None, int]:
    from sightline.api import audit

    with ProgressLine("collecting", flags["display"]) as line, stop_on_signal() as stop:
        collecting = collect_settings(flags, line, stop)
        outcome, collected = audit(
            flags["output"],
            model=flags["model"],
            data=flags["data"],
            conditions=flags["conditions"],
            layers=collecting.pop("layers"),
            limit=collecting.pop("limit"),
            settings=settings,
            collecting=collecting,
            measuring=lambda: line.start(f"measuring {Path(flags['output']).name}"),
            **_asked(flags, line, stop),
        )
    if outcome is None:
        return None, _stopped(stop)
    return outcome, _failures(collected)


def _asked(flags: dict[str, Any], line: ProgressLine, stop: Stop) -> dict[str, Any]:
    """What an audit asks models for beyond collecting: probes, and the meaning of answers."""
    return {
        "probe": flags["probe"],
        "probing": {
            "announce": announce,
            "progress": lambda done, total: line.update(done, total, label="probing"),
            "should_stop": stop,
        },
        "entailment": flags["entailment"],
        "model_options": loading_settings(flags),
    }


def _stopped(stop: Stop) -> int:
    click.echo("sightline: stopped; run the same command to go on.", err=True)
    return stop.exit_code


def _failures(collected: CollectResult | None) -> int:
    """4 where examples failed, which are told apart on standard error."""
    if collected is None or not collected.quarantined + collected.rejected:
        return 0
    for reason, count in collected.reasons[:5]:
        click.echo(f"  {count} × {' '.join(reason.split())}", err=True)
    if collected.quarantined == collected.total:
        raise SightlineError(
            f"All {collected.total} examples failed; answers are required. See the reasons above."
        )
    return 4


def _show(
    outcomes: list[AuditOutcome],
    flags: dict[str, Any],
    settings: AuditSettings,
    sizes: list[int] | None,
) -> None:
    from sightline.report.audit_terminal import print_audit, print_comparison
    from sightline.report.render import write_audit_report
    from sightline.workflow.auditing.comparing import comparison
    from sightline.workflow.auditing.writing import FOLDER, RESULTS

    audits = [outcome.audit for outcome in outcomes]
    beside = flags["against"] is not None
    together = comparison(
        outcomes[:-1] if beside else outcomes,
        sizes=sizes,
        against=outcomes[-1] if beside else None,
        settings=settings,
    )
    page = None
    if flags["report"] or all(find_spec(name) for name in ("jinja2", "matplotlib")):
        name = "report.html" if len(audits) == 1 else "comparison.html"
        page = Path(flags["report"] or Path(audits[0].path) / FOLDER / name)
        write_audit_report(audits, page, comparison=together)
    if flags["as_json"]:
        document = {"audits": [asdict(audit) for audit in audits], "comparison": asdict(together)}
        click.echo(json.dumps(document, allow_nan=False))
        return
    for audit in audits:
        print_audit(audit)
        click.echo(str(Path(audit.path) / RESULTS))
    if page is not None:
        click.echo(str(page))
    if len(audits) > 1:
        print_comparison(audits, together)


def _sizes(text: str, runs: int) -> list[int]:
    """Parameters of each run's model, in the order of the runs."""
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) == runs == 1 and math.isfinite(sizes[0]) and sizes[0] >= 1:
        raise UsageError(
            f"--sizes {text[:80]} for one run; sizes compare two runs or more. Name the others, "
            "or leave --sizes out."
        )
    if len(sizes) != runs or not all(math.isfinite(size) and size >= 1 for size in sizes):
        raise UsageError(
            f"--sizes {text[:80]} for {runs} runs; a number of parameters for each, in their "
            "order, is required. For example: --sizes 7e9,13e9."
        )
    return [int(size) for size in sizes]
