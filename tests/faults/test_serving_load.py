"""Many clients, slow clients, clients that leave, and a server that is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "serving"))

from judges import HalfJudge
from running import Running, data_url, picture, running, with_image

from sightline.models.fake import FakeModel
from sightline.serving.feedback import read_outcomes
from sightline.serving.limits import Limits

HERE = Path(__file__).resolve().parents[1] / "unit" / "serving"
CHAT = "/v1/chat/completions"
BODY = json.dumps({"messages": [{"role": "user", "content": "What is it?"}]}).encode()
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY)
)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert holds()


class Slow:
    """The fake model, which takes its time for every batch and remembers the batches."""

    def __init__(self, seconds: float) -> None:
        self.fake, self.seconds = FakeModel(), seconds
        self.batches: list[list[str]] = []
        self.shared: list[int] = []

    def fingerprint(self) -> Any:
        return self.fake.fingerprint()

    def observe(self, examples: Any, images: Any, request: Any) -> Any:
        self.batches.append([example.question for example in examples])
        self.shared.append(len({id(own[0]) for own in images if own}))
        time.sleep(self.seconds)
        return self.fake.observe(examples, images, request)


def test_16_slow_clients_are_cut_and_others_served() -> None:
    limits = Limits(header_s=1.0, body_s=1.5)
    with running(limits=limits) as server:
        connections = []
        for i in range(200):
            connection = socket.create_connection(("127.0.0.1", server.port))
            slow_body = i % 3 == 0
            connection.sendall(HEAD + b"{" if slow_body else b"POST / HT" if i % 3 == 1 else b"")
            connections.append(connection)
        assert server.call("/health")[0] == 200
        assert server.works()
        deadline = time.monotonic() + 15
        held = connections
        while held and time.monotonic() < deadline:
            time.sleep(0.2)
            for connection in held[:20]:  # a byte now and then does not buy more time
                try:
                    connection.sendall(b"x")
                except OSError:
                    continue
            held = [one for one in held if not closed(one)]
            assert server.call("/health")[0] == 200
        assert not held
        assert server.works()


def closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while data := connection.recv(65536):
            del data
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.setblocking(True)
    return True


def test_a_client_that_does_not_read_is_cut() -> None:
    class Talkative(FakeModel):
        def observe(self, examples: Any, images: Any, request: Any, **more: Any) -> Any:
            records = super().observe(examples, images, request, **more)
            object.__setattr__(records[0].greedy, "text", "long " * 4_000_000)
            return records

    with running(Talkative(), limits=Limits(write_s=0.5)) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(HEAD + BODY)
            deadline = time.monotonic() + 20
            while not server.server.counters.requests and time.monotonic() < deadline:
                time.sleep(0.05)
            assert server.server.counters.active == 0
        assert server.call("/health")[0] == 200


def test_17_five_hundred_at_once_all_get_an_answer() -> None:
    model = Slow(0.02)
    with running(model) as server:
        with ThreadPoolExecutor(500) as pool:
            barrier = threading.Barrier(500)

            def ask(i: int) -> tuple[int, dict[str, str]]:
                barrier.wait()
                status, document, headers = server.chat(f"question {i}")
                if status == 503:
                    assert document["error"]["code"] == "queue_full"
                    assert int(headers["retry-after"]) >= 1
                return status, headers

            answers = list(pool.map(ask, range(500)))
        statuses = Counter(status for status, _ in answers)
        assert set(statuses) <= {200, 503}
        assert statuses[200] >= 64 + 128
        assert sum(map(len, model.batches)) == statuses[200]
        assert max(map(len, model.batches)) > 1
        assert server.works()


def test_requests_are_batched_and_equal_images_shared() -> None:
    model = Slow(0.3)
    with running(model) as server, ThreadPoolExecutor(13) as pool:
        first = pool.submit(server.chat, "first")
        time.sleep(0.15)
        url = data_url(picture())
        bodies = [{"messages": with_image(f"q{i}", url)} for i in range(12)]
        answers = [pool.submit(server.call, CHAT, body) for body in bodies]
        assert [a.result()[0] for a in (first, *answers)] == [200] * 13
    assert model.batches[0] == ["first"]
    assert sum(len(batch) for batch in model.batches) == 13
    assert len(model.batches) <= 4
    assert model.shared[1:] == [1] * (len(model.batches) - 1)


def test_18_clients_that_leave_are_not_answered() -> None:
    model = Slow(0.4)
    with running(model) as server:
        connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
        for connection in connections:
            connection.sendall(HEAD + BODY)
        time.sleep(0.2)
        for connection in connections:
            connection.close()
        counters = server.server.counters
        wait_until(lambda: (counters.active, counters.waiting) == (0, 0))
        assert server.works()
        assert sum(map(len, model.batches)) < 40
        wait_until(lambda: server.server.bodies.held == 0)


def test_a_deadline_ends_in_504() -> None:
    with running(Slow(1.5), limits=Limits(request_s=0.4)) as server:
        status, document, _ = server.chat()
        assert (status, document["error"]["code"]) == (504, "deadline")


def test_bodies_that_are_too_much_together_are_turned_away() -> None:
    with running(Slow(1.0), limits=Limits(max_held=300_000)) as server:
        body = {"messages": [{"role": "user", "content": "x" * 150_000}]}
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: server.call(CHAT, body), range(4)))
        statuses = Counter(status for status, _, _ in answers)
        assert set(statuses) == {200, 503}
        wait_until(lambda: server.server.bodies.held == 0)


def test_a_model_that_fails_costs_the_question_at_fault() -> None:
    class Failing(FakeModel):
        def observe(self, examples: Any, images: Any, request: Any, **more: Any) -> Any:
            from sightline.core.errors import ModelError

            if any("bad" in example.question for example in examples):
                raise ModelError("RuntimeError: at 0x7f00; the model failed.") from RuntimeError()
            time.sleep(0.05)
            return super().observe(examples, images, request, **more)

    with running(Failing()) as server, ThreadPoolExecutor(16) as pool:
        asked = ["bad" if i % 8 == 3 else f"good {i}" for i in range(16)]
        answers = list(pool.map(server.chat, asked))
        for question, (status, document, _) in zip(asked, answers, strict=True):
            assert status == (400 if question == "bad" else 200)
            if status == 400:
                assert "0x" not in document["error"]["message"]


def test_a_model_that_breaks_is_said_on_every_path() -> None:
    class Broken(FakeModel):
        def observe(self, examples: Any, images: Any, request: Any, **more: Any) -> Any:
            raise ZeroDivisionError

    with running(Broken()) as server:
        threading.excepthook, kept = (lambda _: None), threading.excepthook
        try:
            status, document, _ = server.chat()
        finally:
            threading.excepthook = kept
        assert (status, document["error"]["code"]) == (503, "engine_down")
        assert server.call("/health")[0] == 503
        assert server.chat()[0] == 503


def soak(server: Running, count: int, clients: int = 8) -> list[float]:
    """Asks that many questions of all kinds; returns memory in bytes along the way."""
    process = psutil.Process()
    sizes = []

    def ask(i: int) -> None:
        url = data_url(picture(f"#{i % 4096:03x}000"[:7]))
        kinds: list[tuple[str, Any]] = [
            (CHAT, {"messages": with_image(f"q{i}", url)}),
            (CHAT, {"messages": with_image(f"q{i}", url), "stream": True}),
            (CHAT, b"{" * (i % 50)),
            (CHAT, {"messages": with_image("q", "data:image/png;base64,AAAA")}),
            ("/metrics", None),
        ]
        path, body = kinds[i % len(kinds)]
        assert server.call(path, body, method="POST" if body else "GET")[0] in (200, 400, 405)

    with ThreadPoolExecutor(clients) as pool:
        for start in range(0, count, count // 10):
            list(pool.map(ask, range(start, start + count // 10)))
            sizes.append(process.memory_info().rss)
    return sizes


def test_memory_is_flat() -> None:
    with running() as server:
        sizes = soak(server, 1000)
    assert sizes[-1] - sizes[3] < 15e6


@pytest.mark.slow
def test_memory_is_flat_over_20_000_requests() -> None:
    with running() as server:
        sizes = soak(server, 20_000)
    assert sizes[-1] - sizes[2] < 15e6


SERVE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from judges import HalfJudge
from running import running
from sightline.serving.feedback import FeedbackStore
store = FeedbackStore(Path(sys.argv[2]), "half@sha256:0")
with running(judge=HalfJudge(), feedback=store, has_policy=True) as server:
    print(server.port, flush=True)
    sys.stdin.read()
"""


@contextmanager
def killable(directory: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server with feedback in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(HERE), str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_9_loses_no_acknowledged_outcome(tmp_path: Path, rounds: int) -> None:
    acknowledged: set[str] = set()
    for turn in range(rounds):
        with killable(tmp_path) as (process, port):
            server = Running(None, port)  # type: ignore[arg-type]
            answer = server.chat(f"question {turn}", n=16)[1]
            receipts = {
                f"{answer['id']}:{choice['index']}": choice["trust"]["receipt"]
                for choice in answer["choices"]
            }
            assert all(receipts.values())
            stop = threading.Event()

            def grade(item: tuple[str, str], server: Running = server) -> None:
                name, receipt = item
                try:
                    status, _, _ = server.call(
                        "/v1/feedback", {"receipt": receipt, "correct": True}, timeout=10
                    )
                except (OSError, ValueError):
                    return
                if status == 200:
                    acknowledged.add(name)

            def grade_all(receipts: Any = receipts, stop: Any = stop, grade: Any = grade) -> None:
                with ThreadPoolExecutor(4) as pool:
                    list(pool.map(lambda i: stop.is_set() or grade(i), receipts.items()))

            grading = threading.Thread(target=grade_all)
            before = len(acknowledged)
            grading.start()
            while len(acknowledged) == before and grading.is_alive():
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            stop.set()
            grading.join()
    kept = [outcome["answer"] for outcome in read_outcomes(tmp_path)]
    assert acknowledged
    assert acknowledged <= set(kept)
    assert len(kept) == len(set(kept))
    with killable(tmp_path) as (_, port):
        status, document, _ = Running(None, port).call("/v1/feedback")  # type: ignore[arg-type]
        assert (status, document["outcomes"]) == (200, len(kept))


def test_feedback_over_http_watches_the_calibration(tmp_path: Path) -> None:
    from sightline.serving.feedback import FeedbackStore

    store = FeedbackStore(tmp_path, "half@sha256:0")
    with running(judge=HalfJudge(), feedback=store, has_policy=True) as server:
        _, document, _ = server.chat()
        trust = document["choices"][0]["trust"]
        sent = {"receipt": trust["receipt"], "correct": False, "note": "it is blue"}
        status, kept, _ = server.call("/v1/feedback", sent)
        assert (status, kept["kept"], kept["new"]) == (200, True, True)
        assert kept["calibration"]["n"] == 1
        assert kept["calibration"]["mean_confidence"] == trust["confidence"]
        assert server.call("/v1/feedback", {**sent, "correct": True})[0] == 409
        assert server.call("/v1/feedback", {**sent, "correct": 1.5})[0] == 400
        assert server.call("/v1/feedback", {**sent, "receipt": "x"})[0] == 400
        text = server.call("/metrics")[1].decode()
        assert "sightline_feedback_total 1" in text
        assert 'sightline_answers_total{decision="' in text
