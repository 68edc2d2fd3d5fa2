"""``sightline collect`` and ``doctor`` on openai:NAME, through the real command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures" / "endpoint"))

from chat_servers import ChatServer, FakeChat

DATA = "scenes:test?n=12"


def command(server, out, *more):
    return [
        sys.executable, "-m", "sightline", "collect", "-m", "openai:m", "--base-url", server.url,
        "-d", DATA, "-o", str(out), "--samples", "3", "--shard-size", "2", "--batch-size", "2",
        "--max-new-tokens", "8", "--display", "none", *more,
    ]  # fmt: skip


def run(arguments, **settings):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **settings}
    return subprocess.run(
        arguments, check=False, capture_output=True, text=True, timeout=300, env=environment
    )


def shards(out):
    return {path.name: path.read_bytes() for path in sorted((out / "shards").iterdir())}


def test_a_killed_collect_goes_on_and_ends_the_same(tmp_path):
    from sightline.store.run import RunStore

    with ChatServer(FakeChat()) as server:
        whole = run(command(server, tmp_path / "whole"))
        assert whole.returncode == 0, whole.stderr
        assert whole.stderr.count("This endpoint does not show: token_entropy") == 1
        assert "12 questions: at most " in whole.stderr
        server.delay_s = 0.05
        out = tmp_path / "killed"
        for kept in (1, 3):
            process = subprocess.Popen(command(server, out), stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + 120
            while len(list(out.glob("shards/*.parquet"))) < kept:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
        server.delay_s = 0.0
        server.requests.clear()
        again = run(command(server, out))
        assert again.returncode == 0, again.stderr
        RunStore.open(out).gc()
        assert shards(out) == shards(tmp_path / "whole")
        manifest = RunStore.open(out).manifest
        assert manifest.model["name"] == "m"
        assert manifest.model["capabilities"]["seed"] is True
        assert str(server.port) not in json.dumps(dict(manifest.model))
        server.version = "1.3"
        other = run(command(server, out))
        assert other.returncode == 2
        assert "1.3" in other.stderr


def test_a_server_that_dies_leaves_what_was_collected(tmp_path):
    chat = FakeChat()
    with ChatServer(chat) as server:
        server.script.extend([None] * 60)
        server.always = lambda handler: handler.send_whole(b"{}", 503)
        out = tmp_path / "run"
        arguments = command(server, out, "--model-args", "attempts=2")
        stopped = run(arguments)
        assert stopped.returncode == 1
        assert len(stopped.stderr.strip().splitlines()[-1]) < 400
        assert "run the same command to go on" in stopped.stderr
        committed = set(shards(out))
        assert committed
        server.always = None
        done = run(arguments)
        assert done.returncode == 0, done.stderr
        assert committed < set(shards(out))


def test_doctor_prints_what_the_endpoint_does():
    with ChatServer(FakeChat(ignored=frozenset({"seed"}))) as server:
        doctor = [sys.executable, "-m", "sightline", "doctor", "-m", "openai:m"]
        plain = run([*doctor, "--base-url", server.url])
        assert plain.returncode == 0, plain.stderr
        as_json = run([*doctor, "--json"], SIGHTLINE_BASE_URL=server.url)
    assert "  log-probabilities: yes, the end token included, before the temp" in plain.stdout
    assert "  seeds: no effect, or texts differ" in plain.stdout
    assert "  pictures: seen" in plain.stdout
    assert "likeliest tokens per place: 11" in json.loads(as_json.stdout)["endpoint"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "openai:m"], "without a base URL"),
        (["-m", "openai:", "--base-url", "http://127.0.0.1:9/v1"], "without a name"),
        (["-m", "fake", "--base-url", "http://127.0.0.1:9/v1"], "fake with a base URL"),
        (["-m", "openai:m", "--base-url", "127.0.0.1:9"], "Base URL '127.0.0.1:9'"),
        (["-m", "openai:m", "--api-key-env", "NO_SUCH_KEY"], "without --base-url"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_2(arguments, message):
    found = run([sys.executable, "-m", "sightline", "doctor", *arguments])
    assert found.returncode == 2
    assert message in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_a_dead_address_is_one_line_and_exit_1():
    with ChatServer(FakeChat()) as server:
        url = server.url
    found = run([sys.executable, "-m", "sightline", "doctor", "-m", "openai:m", "--base-url", url])
    assert found.returncode == 1
    assert "no connection" in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
