"""A collect killed with SIGKILL at any moment resumes to the same rows and arrays."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

COMMAND = [
    sys.executable, "-m", "sightline", "collect", "-m", "fake", "--samples", "3",
    "--layers", "0.5,1.0", "--shard-size", "2", "--display", "none",
]  # fmt: skip


CONDITIONS = [
    "--conditions", "jpeg:3,rotate:30,wording:2,answer_text:1", "--condition-samples", "1",
]  # fmt: skip


def _collect(data: str, out: Path, more: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *more, "-d", data, "-o", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _bytes(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((run / "shards").iterdir())}


def _kill_until_done(
    data: str,
    out: Path,
    longest_s: float,
    kills: int,
    chance: random.Random,
    more: Sequence[str],
) -> int:
    """Starts the same command again and again until it is done; returns how often it was killed."""
    killed = 0
    while killed < kills:
        process = _collect(data, out, more)
        try:
            process.wait(timeout=chance.uniform(0.0, longest_s))
        except subprocess.TimeoutExpired:
            before = {p.name for p in out.glob("shards/*.parquet")}
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            after = {p.name for p in out.glob("shards/*.parquet")}
            assert before <= after
        else:
            assert process.returncode == 0, process.stderr.read()
            return killed
    process = _collect(data, out, more)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return killed


def _check(tmp_path: Path, n: int, kills: int, seed: int, more: Sequence[str] = ()) -> None:
    """Spreads the kills over as many runs as they last for, and compares each with a whole one."""
    from sightline.store.run import RunStore

    data = f"scenes:test?n={n}"
    started = time.monotonic()
    whole = _collect(data, tmp_path / "whole", more)
    _, errors = whole.communicate(timeout=120)
    took = time.monotonic() - started
    assert whole.returncode == 0, errors
    expected = _bytes(tmp_path / "whole")
    chance = random.Random(seed)
    killed, runs = 0, 0
    while killed < kills:
        out = tmp_path / f"killed-{runs}"
        killed += _kill_until_done(data, out, took, kills - killed, chance, more)
        runs += 1
        store = RunStore.open(out)
        store.gc()
        assert _bytes(out) == expected
        assert store.verify() == []
        keys = [record.key for record in store.records()]
        keys += [row.key for row in store.refused()]
        assert len(keys) == len(set(keys)) == len(store.manifest.conditions) * n
    assert killed == kills


def test_three_kills(tmp_path):
    _check(tmp_path, n=40, kills=3, seed=1)


def test_three_kills_under_conditions(tmp_path):
    _check(tmp_path, n=24, kills=3, seed=2, more=CONDITIONS)


@pytest.mark.slow
def test_fifty_kills(tmp_path):
    _check(tmp_path, n=120, kills=50, seed=0)


@pytest.mark.slow
def test_fifty_kills_under_conditions(tmp_path):
    _check(tmp_path, n=60, kills=50, seed=3, more=CONDITIONS)


def test_two_collects_on_one_run_give_one_error_that_names_the_lock(tmp_path):
    from sightline.store.run import RunStore

    data = "scenes:test?n=20"
    first = _collect(data, tmp_path / "run")
    assert first.wait(timeout=60) == 0
    store = RunStore.open(tmp_path / "run")
    with store.writer():
        second = _collect(data, tmp_path / "run")
        _, errors = second.communicate(timeout=60)
    assert second.returncode == 2, errors
    assert str(os.getpid()).encode() in errors
    assert len(errors.splitlines()) == 1


def test_ctrl_c_commits_the_shard_and_exits_130(tmp_path):
    process = _collect("scenes:test?n=4000", tmp_path / "run")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("run/shards/*.parquet")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"stopping after the current shard" in errors
    assert b"run the same command to go on" in errors
    from sightline.store.run import RunStore

    assert RunStore.open(tmp_path / "run").verify() == []


def test_a_termination_signal_exits_143(tmp_path):
    process = _collect("scenes:test?n=4000", tmp_path / "run")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("run/shards/*.parquet")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
