"""Commands of sightline in processes of their own."""

from __future__ import annotations

import subprocess
import sys


def command(*args: object) -> subprocess.CompletedProcess[str]:
    """What came of a command."""
    return subprocess.run(
        [sys.executable, "-m", "sightline", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def done(*args: object, code: int = 0) -> str:
    """Standard output of a command that ends with this code and without a traceback."""
    result = command(*args)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


def refused(code: int, *args: object) -> str:
    """The one line in which a command says why it ended with this code."""
    result = command(*args)
    assert result.returncode == code, result.stderr
    (line,) = [x for x in result.stderr.splitlines() if x.startswith("sightline: ")]
    assert "Traceback" not in result.stderr
    return line
