"""Progress on standard error, and stopping when asked."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

PLAIN_INTERVAL_S = 30.0


class ProgressLine:
    """Shows ``label: done/total`` as a bar on a terminal, else one line now and then.

    Args:
        label: What is being done.
        display: ``auto``, ``rich``, ``plain`` or ``none``.
    """

    def __init__(self, label: str, display: str) -> None:
        self._label = label
        self._mode = display
        if display == "auto":
            self._mode = "rich" if sys.stderr.isatty() else "plain"
        self._bar: Any = None
        self._task: Any = None
        self._last = 0.0

    def __enter__(self) -> ProgressLine:
        if self._mode == "rich":
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(self._label, total=None, note="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, label: str) -> None:
        """Shows that something begins of which nobody knows how far it is, and says so at once."""
        if self._bar is not None:
            self._bar.reset(self._task, description=label, total=None, note="")
        elif self._mode == "plain":
            click.echo(label, err=True)

    def update(self, done: int, total: int, note: str = "", label: str | None = None) -> None:
        """Shows a new state."""
        if self._bar is not None:
            self._bar.update(
                self._task,
                description=label or self._label,
                completed=done,
                total=total,
                note=note,
            )
        elif self._mode == "plain":
            now = time.monotonic()
            if done < total and now - self._last < PLAIN_INTERVAL_S:
                return
            self._last = now
            click.echo(f"{label or self._label}: {done}/{total} {note}".rstrip(), err=True)


class Stop:
    """Remembers that a signal asked to stop; the second one aborts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after a termination signal."""
        return 128 + (self.signal or signal.SIGINT)

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Signal handler."""
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        click.echo(
            "\nsightline: stopping after the current shard; press Ctrl-C again to abort now.",
            err=True,
        )


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Turns the first Ctrl-C or termination signal into a request to stop."""
    stop = Stop()
    previous = {n: signal.signal(n, stop.handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def duration(seconds: float) -> str:
    """Returns a duration as people read it: ``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: float) -> str:
    """Returns a number of bytes as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
