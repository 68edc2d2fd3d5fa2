"""Runs the long tests and writes what came of them to slow-results.json beside this file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).parent


def main() -> int:
    """Returns pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = ["-m", "pytest", "-m", "slow", f"--junitxml={report}", *sys.argv[1:]]
        code = subprocess.run([sys.executable, *command], cwd=HERE.parent, check=False).returncode
        cases = [_result(case) for case in ElementTree.parse(report).iter("testcase")]
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "outcomes": {
            outcome: sum(case["outcome"] == outcome for case in cases)
            for outcome in ("passed", "failed", "error", "skipped")
        },
        "seconds": round(sum(case["seconds"] for case in cases)),
        "tests": cases,
    }
    (HERE / "slow-results.json").write_text(json.dumps(document, indent=1) + "\n")
    return code


def _result(case: ElementTree.Element) -> dict[str, str | float]:
    outcome = next(
        (kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None), "passed"
    )
    return {
        "test": f"{case.get('classname')}.{case.get('name')}",
        "outcome": "failed" if outcome == "failure" else outcome,
        "seconds": round(float(case.get("time", 0)), 1),
    }


if __name__ == "__main__":
    sys.exit(main())
