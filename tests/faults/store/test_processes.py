"""Several processes, killed processes, full disks: real ones."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_plans import (
    N,
    assert_same_record,
    compared_bytes,
    make_examples,
    make_manifest,
    make_record,
    shard_rows,
    write_run,
)

from sightline.core.errors import DiskError, StoreError
from sightline.store.run import RunStore

HERE = Path(__file__).parent
HOLD = """
import sys
from run_plans import make_examples, make_manifest
from sightline.store.run import RunStore
with RunStore.resume(sys.argv[1], make_manifest(), make_examples()).writer():
    print("held", flush=True)
    sys.stdin.read()
"""


def start(*arguments: object, code: str | None = None, **options: object) -> subprocess.Popen[str]:
    program = ["-c", code] if code is not None else [str(HERE / "run_plans.py")]
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HERE)},
        **options,  # type: ignore[call-overload]
    )


def kill_until_complete(path: Path, examples: int, kills: int, rng: random.Random) -> int:
    """Kills a writer at random moments; afterwards, every acknowledged shard must be readable."""
    acknowledged: set[int] = set()
    deaths = 0
    for _ in range(kills):
        process = start(path, examples)
        assert process.stdout is not None
        for _ in range(rng.randrange(0, 6)):
            line = process.stdout.readline()
            acknowledged |= {int(line)} if line else set()
        time.sleep(rng.random() * rng.choice([0.0005, 0.005, 0.05]))
        process.kill()
        rest, errors = process.communicate()
        assert "Error" not in errors, errors
        lines = rest.split("\n")[:-1]
        acknowledged |= {int(line) for line in lines}
        deaths += process.returncode == -signal.SIGKILL
        if (path / "manifest.json").exists():
            assert RunStore.open(path).committed() >= acknowledged
            assert RunStore.open(path).verify() == []
        else:
            assert not acknowledged
    write_run(path, examples).gc()
    return deaths


def check_killed_run(tmp_path: Path, examples: int, kills: int, seed: int) -> None:
    whole = compared_bytes(write_run(tmp_path / "whole", examples).path)
    deaths = kill_until_complete(tmp_path / "run", examples, kills, random.Random(seed))
    assert deaths > 0
    assert compared_bytes(tmp_path / "run") == whole
    keys = [record.key for record in RunStore.open(tmp_path / "run").records()]
    assert len(keys) == len(set(keys)) == 2 * (examples - 1)


def test_killed_writers_lose_nothing(tmp_path: Path) -> None:
    check_killed_run(tmp_path, examples=45, kills=3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_many_killed_writers_lose_nothing(tmp_path: Path, seed: int) -> None:
    check_killed_run(tmp_path, examples=150, kills=8, seed=seed)


def test_a_second_writer_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    process = start(tmp_path / "run", code=HOLD)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        store = RunStore.open(tmp_path / "run")
        with pytest.raises(StoreError, match=f"process {process.pid};") as caught, store.writer():
            pass
        assert caught.value.exit_code == 2
        with pytest.raises(StoreError, match=f"process {process.pid};"):
            store.gc()
        assert store.examples() == make_examples()
    finally:
        process.kill()
        process.communicate()
    with store.writer() as writer:
        writer.commit(0, *shard_rows(store.shard_examples(0)))


def test_racing_writers_leave_one_whole_run(tmp_path: Path) -> None:
    whole = compared_bytes(write_run(tmp_path / "whole").path)
    racers = [start(tmp_path / "run") for _ in range(3)]
    results = [(*racer.communicate(), racer.returncode) for racer in racers]
    assert any(code == 0 for _, _, code in results)
    for _, errors, code in results:
        assert code == 0 or "StoreError" in errors.splitlines()[-1]
    write_run(tmp_path / "run").gc()
    assert compared_bytes(tmp_path / "run") == whole


def test_a_reader_beside_a_writer_sees_only_whole_shards(tmp_path: Path) -> None:
    process = start(tmp_path / "run", 45)
    seen = 0
    while process.poll() is None:
        if (tmp_path / "run" / "manifest.json").exists():
            store = RunStore.open(tmp_path / "run")
            committed = store.committed()
            for index in sorted(committed)[-2:]:
                for record in store.records(shard=index):
                    assert_same_record(record, make_record(record.example, record.condition))
            assert len(committed) >= seen
            seen = len(committed)
    assert process.wait() == 0
    process.communicate()
    assert len(RunStore.open(tmp_path / "run").committed()) == 15


def test_a_file_size_limit_leaves_what_was_committed(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run", make_manifest(), make_examples())
    with store.writer() as writer:
        writer.commit(0, *shard_rows(store.shard_examples(0)))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    process = start(tmp_path / "run", preexec_fn=limit)
    output, errors = process.communicate()
    assert process.returncode == 1
    assert output == ""
    assert "File too large; a writable disk" in errors.splitlines()[-1]
    assert store.committed() == {0}
    assert store.verify() == []
    write_run(tmp_path / "run").gc()
    whole = compared_bytes(write_run(tmp_path / "whole").path)
    assert compared_bytes(tmp_path / "run") == whole


def test_a_full_disk_leaves_what_was_committed(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs is not permitted here")
    try:
        with pytest.raises(DiskError, match="No space left on device") as caught:
            write_run(disk / "run", 60)
        assert caught.value.exit_code == 1
        store = RunStore.open(disk / "run")
        committed = store.committed()
        assert 0 < len(committed) < 20
        assert store.verify() == []
        assert len(list(store.records())) >= 4
        shutil.copytree(disk / "run", tmp_path / "larger")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    write_run(tmp_path / "larger", 60).gc()
    whole = compared_bytes(write_run(tmp_path / "whole", 60).path)
    assert compared_bytes(tmp_path / "larger") == whole


def test_a_read_only_run_can_be_read(tmp_path: Path, written_run: Path) -> None:
    shutil.copytree(written_run, tmp_path / "run")
    (tmp_path / "run" / "lock").unlink()
    for file in (tmp_path / "run").rglob("*"):
        file.chmod(0o555)
    before = sorted((tmp_path / "run").rglob("*"))
    store = RunStore.open(tmp_path / "run")
    assert len(list(store.records())) == 2 * (N - 1)
    assert store.verify() == []
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_a_folder_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xff"))
    store = write_run(path, 4)
    assert store.verify() == []
    assert len(list(RunStore.open(path).records())) == 8
