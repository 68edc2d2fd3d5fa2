"""sightline runs: list, show, verify, export, merge and clean runs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from sightline.cli.display import size
from sightline.cli.groups import Group
from sightline.core.errors import CorruptStoreError, DiskError, UsageError

RUN = click.Path(file_okay=False, path_type=Path)


@click.group("runs", cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def runs_group() -> None:
    """List, show, verify, export, merge and clean runs."""


@runs_group.command("ls")
@click.argument("root", type=RUN, default=Path("runs"))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_command(root: Path, as_json: bool) -> int:
    """List the runs below a folder (default: runs)."""
    from sightline.core.printing import printable
    from sightline.store.listing import DEPTH, StoredRun, list_runs

    runs = list_runs(root)
    if as_json:
        click.echo(json.dumps([asdict(run) for run in runs], indent=1, default=str))
        return 0
    for run in runs:
        if not isinstance(run, StoredRun):
            click.echo(f"{run.path}  unreadable: {printable(run.problem)}")
            continue
        state = "" if run.committed == run.n_shards else f", {run.committed}/{run.n_shards} shards"
        partial = f", partial ({run.partial})" if run.partial else ""
        click.echo(
            f"{run.path}  {printable(run.model)} on {printable(run.dataset)}: "
            f"{run.records} records, {run.quarantined} quarantined{state}{partial}, "
            f"{size(run.bytes)}, {run.created}"
        )
    if not runs:
        click.echo(f"No runs below {root}, {DEPTH} levels deep.", err=True)
    return 0


@runs_group.command("show")
@click.argument("run", type=RUN)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show_command(run: Path, as_json: bool) -> int:
    """Show one run: what it is, what it holds, what failed."""
    from sightline.core.condition_names import CLEAN
    from sightline.core.printing import printable
    from sightline.store.listing import describe_run
    from sightline.store.run import RunStore

    described = describe_run(run)
    store = RunStore.open(run)
    quarantined, rejected = store.quarantined(), store.rejected()
    refused = Counter((row.key.condition, row.reason) for row in store.refused())
    if as_json:
        document = {
            **asdict(described),
            "manifest": store.manifest.to_dict(),
            "quarantine": [
                {"example_id": q.key.example_id, "condition": q.key.condition, "reason": q.reason}
                for q in quarantined
            ],
            "rejections": [asdict(row) for row in rejected],
            "refusals": [
                {"condition": condition, "reason": reason, "examples": count}
                for (condition, reason), count in refused.items()
            ],
        }
        click.echo(json.dumps(document, indent=1, default=str))
        return 0
    for name, value in asdict(described).items():
        shown = ", ".join(map(str, value)) if isinstance(value, tuple | list | set) else value
        if name == "bytes":
            shown = size(float(value))
        click.echo(f"{name:12} {printable(str(shown))}")
    for name, settings in store.manifest.settings.items():
        click.echo(f"{name:12} {printable(json.dumps(settings))}")
    for q in quarantined[:20]:
        under = "" if q.key.condition == CLEAN else f" under {q.key.condition}"
        click.echo(f"quarantined  {printable(q.key.example_id + under)}: {printable(q.reason)}")
    for row in rejected[:20]:
        click.echo(f"rejected     {printable(row.where)}: {printable(row.reason)}")
    for (condition, reason), count in refused.most_common(20):
        click.echo(f"refused      {printable(condition)}: {count} × {printable(reason)}")
    more = sum(max(0, len(rows) - 20) for rows in (quarantined, rejected, refused))
    if more:
        click.echo(f"… and {more} more; --json shows all.")
    return 0


@runs_group.command("verify")
@click.argument("runs", nargs=-1, required=True, type=RUN)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify_command(runs: tuple[Path, ...], as_json: bool) -> int:
    """Check every byte of runs against their checksums; exit 5 on damage."""
    from sightline.core.printing import printable
    from sightline.store.inspection import verify_run

    problems = {str(run): verify_run(run) for run in runs}
    found = sum(len(p) for p in problems.values())
    if as_json:
        click.echo(
            json.dumps(
                {run: [asdict(p) for p in found] for run, found in problems.items()}, default=str
            )
        )
    for run, listed in problems.items():
        for problem in listed:
            click.echo(
                f"{run}: {printable(f'{problem.file}: {problem.what} ({problem.where})')}", err=True
            )
        if not listed and not as_json:
            click.echo(f"{run}: every byte as written")
    if found:
        raise CorruptStoreError(
            f"{found} damaged file(s); bytes as written are required. Restore them from a copy, "
            "or collect the named shards again after removing them."
        )
    return 0


@runs_group.command("export")
@click.argument("run", type=RUN)
@click.option(
    "--output-path",
    "-o",
    "output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file.  [default: standard output]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    show_default=True,
    help="One row per record, quarantined ones included.",
)
@click.option("--condition", help="Only records of this condition.")
@click.option("--to-label", is_flag=True, help="A CSV sheet for people to fill in correctness.")
@click.option("--overwrite", is_flag=True, help="Replace the file that is there.")
def export_command(
    run: Path,
    output: Path | None,
    form: str,
    condition: str | None,
    to_label: bool,
    overwrite: bool,
) -> int:
    """Export rows for other tools, or a sheet for people to label."""
    from sightline.core.condition_names import CLEAN
    from sightline.store import export
    from sightline.store.run import RunStore

    store = RunStore.open(run)
    if output is not None:
        _require_writable(output, overwrite=overwrite)
    try:
        opened: Any = (
            nullcontext(sys.stdout)
            if output is None
            else output.open("w", encoding="utf-8", newline="")
        )
    except OSError as error:
        raise UsageError(
            f"{output}: {error.strerror}; a writable file is required. Choose another path."
        ) from None
    try:
        with opened as out:
            if to_label:
                count = export.write_label_sheet(store, out, condition=condition or CLEAN)
            elif form == "csv":
                count = export.write_csv(store, out, condition=condition)
            else:
                count = export.write_jsonl(store, out, condition=condition)
            out.flush()
    except BrokenPipeError:
        raise  # the reader has enough, such as `head`
    except OSError as error:
        raise DiskError(
            f"Writing {output or 'standard output'} failed: {error.strerror}; a disk with free "
            "space is required. What is there now is not whole: mend the disk and export again."
        ) from None
    if output is not None:
        click.echo(f"{count} rows in {output}", err=True)
    return 0


def _require_writable(output: Path, *, overwrite: bool) -> None:
    """Raises for a file inside a run, and for one that is there unless it may be replaced."""
    from sightline.store.layout import is_run, looking_at

    with looking_at(output):
        inside = next((folder for folder in output.resolve().parents if is_run(folder)), None)
        there = output.is_file()
    if inside is not None:
        raise UsageError(
            f"{output} lies inside the run {inside}; a file outside of runs is required, since a "
            "run holds its own files only. Choose another path."
        )
    if there and not overwrite:
        raise UsageError(
            f"{output} exists already; a new file is required, since a sheet may hold people's "
            "labels. Choose another path, or replace it with --overwrite."
        )


@runs_group.command("merge")
@click.argument("runs", nargs=-1, required=True, type=RUN)
@click.option("--output-path", "-o", "output", required=True, type=RUN, help="The new run.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is there.")
def merge_command(runs: tuple[Path, ...], output: Path, overwrite: bool) -> int:
    """Join runs of one model with the same settings into one."""
    from sightline.store.merge import merge_runs

    click.echo(str(merge_runs(runs, output, overwrite=overwrite).path))
    return 0


@runs_group.command("gc")
@click.argument("runs", nargs=-1, required=True, type=RUN)
def gc_command(runs: tuple[Path, ...]) -> int:
    """Remove what killed writers left behind."""
    from sightline.store.run import RunStore

    for run in runs:
        removed = RunStore.open(run).gc()
        click.echo(f"{run}: removed {len(removed.files)} files, {size(removed.bytes)}")
    return 0
