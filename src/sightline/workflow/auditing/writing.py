"""What an audit leaves in a run: audit.json with every figure, audit.csv with every pair."""

from __future__ import annotations

import csv
from dataclasses import asdict, fields
from io import StringIO
from pathlib import Path

from sightline.core.audit_results import AuditedPair, audit_json
from sightline.store.disk import PendingFile, make_directory, write_file
from sightline.store.export import safe_cell
from sightline.store.run import RunStore
from sightline.workflow.auditing.derived import store_signals
from sightline.workflow.auditing.running import AuditOutcome

FOLDER = Path("audit")
RESULTS = FOLDER / "audit.json"
ROWS = FOLDER / "audit.csv"


def write_audit(outcome: AuditOutcome, run: Path) -> None:
    """Replaces the run's audit, each file whole or not at all, the results last.

    What is known of each answer goes beside the run's records, for the estimators that read it.

    Raises:
        DiskError: The operating system refused.
        StoreError: Another process writes the run.
    """
    table = StringIO()
    writer = csv.DictWriter(table, [field.name for field in fields(AuditedPair)])
    writer.writeheader()
    for pair in outcome.pairs:
        writer.writerow(
            {name: safe_cell(v) if isinstance(v, str) else v for name, v in asdict(pair).items()}
        )
    store_signals(RunStore.open(run), outcome.signals, asdict(outcome.audit.protocol))
    make_directory(run / FOLDER)
    for path, text in ((ROWS, table.getvalue()), (RESULTS, audit_json(outcome.audit))):

        def fill(file: PendingFile, content: bytes = text.encode("utf-8")) -> None:
            file.write(content)

        write_file(run / path, fill)
