"""How long a user waits before anything happens: importing the package, asking for help.

Compares with the interpreter alone and with importing torch, in one run; prints JSON.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from importlib import metadata

from hardware import hardware

RUNS = 9
COMMANDS = {
    "interpreter": ["-c", "pass"],
    "import_sightline": ["-c", "import sightline"],
    "help": ["-m", "sightline", "--help"],
    "import_numpy": ["-c", "import numpy"],
    "import_torch": ["-c", "import torch"],
}


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS + 1):  # the first round warms the disk cache
        for name, arguments in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    core = [r for r in metadata.requires("sightline") or [] if "extra ==" not in r]
    print(
        json.dumps(
            {
                "benchmark": "startup",
                "hardware": hardware("sightline", "numpy", "torch"),
                "runs": RUNS,
                "median_s": medians,
                "import_sightline_beyond_interpreter_s": medians["import_sightline"]
                - medians["interpreter"],
                "torch_over_sightline": medians["import_torch"] / medians["import_sightline"],
                "core_requirements": core,
                "core_requires_torch": any(r.startswith("torch") for r in core),
                "targets": {"import_sightline_s": 0.4, "help_s": 0.3, "core_requires_torch": False},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
