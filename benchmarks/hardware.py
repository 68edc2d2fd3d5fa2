"""The machine and the versions a benchmark's figures depend on."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path


def hardware(*packages: str) -> dict[str, object]:
    """What was measured on: processor, its load, threads, Python and the named packages."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": names[0] if names else platform.processor(),
        "cpus": os.cpu_count(),
        "load_at_start": [round(load, 1) for load in os.getloadavg()],
        "threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }
