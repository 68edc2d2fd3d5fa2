"""Cost of serving: what the proxy adds, what batching and shared images save, what trust costs.

Prints one JSON document. Everything is measured in one run, ways alternating:

- ``proxy``: an upstream in a process of its own that answers after a fixed 300 ms, asked directly
  and through the server, 32 clients at once, evenly spread and in step; the difference of the
  medians is what the proxy adds. CPU milliseconds per request are the server process's own.
  Gate: at most 5 ms added.
- ``trust``: ``trust`` objects with signed receipts from ready records, one answer at a time, by a
  policy on log-probabilities; answers per second of one process and of two at once, and per CPU
  second. Gate: 1,000 per second on two processors.
- ``embedded``, ``random``: 480 or 48 questions to a local engine, one at a time and 16 at once,
  about distinct images and about one image, on the embedded model and on a random LLaVA of 30 M
  parameters; the engine is asked directly, without HTTP. Gates: 1.1 × (random, distinct images),
  3 × (random, one image), 4 × (embedded).
- ``harmony_embedded``, ``harmony_random``: the same engines, 16 at once about distinct images, with
  a policy on HARMONY and with none; what trust costs is the median over the rounds of the one over
  the other, hidden states, scores and decisions included. The embedded model's policy is calibrated
  on a run of its own answers; nothing can be learned from the random one, so the policy learns to
  tell its surer half. Gate: at most 5 %.

Run: OMP_NUM_THREADS=2 python benchmarks/serving.py [--requests 1920] [--questions 48] [--rounds 5]
    [--only proxy]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from hardware import hardware
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "unit" / "serving"))

ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "a red circle"},
            "finish_reason": "stop",
            "logprobs": {
                "content": [
                    {"token": text, "bytes": None, "logprob": -0.1, "top_logprobs": []}
                    for text in ("a", " red", " circle")
                ]
            },
        }
    ],
}
ANSWER_S = 0.3
TOKENS = 8
BODY = {"model": "m", "messages": [{"role": "user", "content": "What is it?"}]}


async def _answers(scope: Any, receive: Any, send: Any) -> None:
    """The upstream: answers after 300 ms."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(ANSWER_S)
    data = json.dumps(ANSWER).encode()
    length = str(len(data)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data})


def _upstream(port: Any) -> None:
    import uvicorn

    from sightline.serving.server import listen

    listening = listen("127.0.0.1", 0)
    port.value = listening.getsockname()[1]
    config = uvicorn.Config(_answers, lifespan="off", log_level="error", access_log=False)
    uvicorn.Server(config).run(sockets=[listening])


def _proxy(port: Any, upstream: int) -> None:
    from judges import HalfJudge
    from running import running

    from sightline.serving.forwarding import Served
    from sightline.serving.server import Settings, proxy_of
    from sightline.serving.shared import Server

    settings = Settings("m", upstream=f"http://127.0.0.1:{upstream}/v1")
    backend = proxy_of(settings, Served("m", frozenset({"m"})), HalfJudge(), None)
    with running(server=Server(backend=backend, has_policy=True)) as found:
        port.value = found.port
        time.sleep(3600)


def _started(target: Any, *args: Any) -> tuple[multiprocessing.Process, int]:
    port = multiprocessing.Value("i", 0)
    process = multiprocessing.Process(target=target, args=(port, *args), daemon=True)
    process.start()
    while not port.value:
        time.sleep(0.05)
    return process, port.value


async def _asked(port: int, count: int, clients: int, *, spread: bool) -> list[float]:
    """Seconds of each request, with that many in flight on a kept connection each.

    The client is bytes on a socket: one that parses and builds takes more time than what is
    measured. Spread clients begin one after the other, evenly over the time of an answer; the
    others begin together, and go on in step.
    """
    body = json.dumps(BODY).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    seconds: list[float] = []

    async def ask(first_s: float) -> None:
        await asyncio.sleep(first_s)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(count // clients):
            started = time.perf_counter()
            writer.write(head.encode() + body)
            found = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert found.startswith(b"http/1.1 200 "), found
            length = found.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            seconds.append(time.perf_counter() - started)
        writer.close()

    step_s = ANSWER_S / clients if spread else 0
    await asyncio.gather(*(ask(i * step_s) for i in range(clients)))
    return seconds


def proxy(count: int) -> dict[str, Any]:
    upstream, far = _started(_upstream)
    server, near = _started(_proxy, far)
    try:
        asyncio.run(_asked(near, 64, 32, spread=False))
        return {
            name: _compared(server, far, near, count, spread=spread)
            for name, spread in (("spread", True), ("in step", False))
        }
    finally:
        for process in (server, upstream):
            process.terminate()


def _compared(server: Any, far: int, near: int, count: int, *, spread: bool) -> dict[str, float]:
    """Requests to the upstream and through the server, in three alternating rounds."""
    times: dict[str, list[float]] = {"direct": [], "proxied": []}
    cpu = 0.0
    for _ in range(3):
        times["direct"] += asyncio.run(_asked(far, count // 3, 32, spread=spread))
        before = sum(psutil.Process(server.pid).cpu_times()[:2])
        times["proxied"] += asyncio.run(_asked(near, count // 3, 32, spread=spread))
        cpu += sum(psutil.Process(server.pid).cpu_times()[:2]) - before
    found: dict[str, float] = {"requests": len(times["proxied"])}
    for name, values in times.items():
        cuts = statistics.quantiles([1000 * value for value in values], n=20)
        found |= {f"{name}_median_ms": cuts[9], f"{name}_p95_ms": cuts[18]}
    added = {f"added_{q}_ms": found[f"proxied_{q}_ms"] - found[f"direct_{q}_ms"] for q in _SHOWN}
    return found | added | {"cpu_ms_per_request": 1000 * cpu / len(times["proxied"])}


_SHOWN = ("median", "p95")


def _judged(count: int) -> tuple[float, float]:
    """Wall and CPU seconds of that many ``trust`` objects from ready records."""
    from policies import policies, records

    from sightline.serving.feedback import FeedbackStore
    from sightline.serving.judging import PolicyJudge
    from sightline.serving.trust import Trusting

    made = records(count)
    judge = PolicyJudge(policies(made)["sequence_probability"], "0" * 16, ())
    with tempfile.TemporaryDirectory() as folder:
        outcomes = FeedbackStore(Path(folder), judge.digest)
        trusting = Trusting(judge, outcomes.receipt)
        wall, cpu = time.perf_counter(), time.process_time()
        for record in made:
            trusting.trust(record, *judge.judge([record]), record.example.id, ())
        took = time.perf_counter() - wall, time.process_time() - cpu
        outcomes.close()
    return took


def trust(count: int = 4000) -> dict[str, Any]:
    found = {}
    for processes in (1, 2):
        with multiprocessing.Pool(processes) as pool:
            took = pool.map(_judged, [count] * processes, chunksize=1)
        total = count * processes
        found[f"{processes} at once"] = {
            "answers_per_second": total / max(wall for wall, _ in took),
            "answers_per_cpu_second": total / sum(cpu for _, cpu in took),
        }
    return found


async def _engine(model: Any, judge: Any, images: list[Any], clients: int) -> tuple[float, float]:
    """Wall and CPU seconds of one question per image, with that many in flight."""
    from sightline.core.types import Example, ImageRef
    from sightline.serving.engine import Engine

    engine = Engine(model, judge, max_batch=16)
    engine.start()
    left = iter(enumerate(images))

    async def ask() -> None:
        for i, image in left:
            shown = (ImageRef(f"{i}.png", ""),)
            example = Example(f"{i}", f"What colour is the circle {'now ' * (i % 4)}?", shown)
            await engine.observe(example, (image,), judge.requests, deadline=time.monotonic() + 600)

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(ask() for _ in range(clients)))
    took = time.perf_counter() - wall, time.process_time() - cpu
    await asyncio.to_thread(engine.stop)
    return took


def _images(side: int, count: int) -> list[Any]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (count, side, side, 3)).astype(np.uint8)
    return [Image.fromarray(pixels) for pixels in noise]


def _alternating(
    model: Any, ways: dict[str, tuple[Any, list[Any], int]], rounds: int
) -> dict[str, tuple[list[float], list[float]]]:
    """Wall and CPU seconds of every way in every round, after an unmeasured few questions."""
    for judge, images, _ in ways.values():
        asyncio.run(_engine(model, judge, images[:4], 4))
    took: dict[str, tuple[list[float], list[float]]] = {way: ([], []) for way in ways}
    for turn in range(rounds):
        for way in list(ways)[:: 1 if turn % 2 else -1]:
            for seconds, one in zip(
                took[way], asyncio.run(_engine(model, *ways[way])), strict=True
            ):
                seconds.append(one)
    return took


def engine(name: str, model: Any, side: int, count: int, rounds: int) -> dict[str, Any]:
    from judges import HalfJudge

    distinct = _images(side, count)
    judge = HalfJudge(max_new_tokens=TOKENS)
    ways = {
        "one at a time": (judge, distinct, 1),
        "16 at once, distinct images": (judge, distinct, 16),
        "16 at once, one image": (judge, [distinct[0]] * count, 16),
    }
    took = _alternating(model, ways, rounds)
    wall, cpu = ({way: min(both[i]) for way, both in took.items()} for i in (0, 1))
    first = "one at a time"
    return {
        "model": name,
        "questions": count,
        "wall_s": wall,
        "cpu_s": cpu,
        "speed_up_cpu": {way: cpu[first] / cpu[way] for way in ways},
        "speed_up_wall": {way: wall[first] / wall[way] for way in ways},
    }


def _calibrated(model: Any, count: int) -> Any:
    """A policy on HARMONY, fitted on graded answers of the embedded model."""
    from sightline.data.examples import load_dataset
    from sightline.serving.judging import saved_judge
    from sightline.store.images import image_writer
    from sightline.workflow.collect import collect
    from sightline.workflow.policy.calibrating import calibrate
    from sightline.workflow.policy.evidence import Target

    with tempfile.TemporaryDirectory() as name:
        run, policy = Path(name) / "run", Path(name) / "policy"
        images = image_writer(run)
        dataset = load_dataset(f"scenes:calibration?n={count}", store_image=images)
        collect(model, dataset, run, request=_harmony_request(), batch_size=32)
        calibrate(run, ("harmony",), policy, Target(None, 0.5))
        return saved_judge(policy)


def _surer(model: Any, side: int, count: int) -> Any:
    """A policy on HARMONY that tells the surer half of a random model's answers to one image."""
    from sightline.core.types import Example
    from sightline.data.splits import split_groups
    from sightline.serving.judging import PolicyJudge
    from sightline.workflow.policy.evidence import Target
    from sightline.workflow.policy.fitting import fit_policy
    from sightline.workflow.policy.labelled import Labelled

    examples = [Example(f"{i}", f"What is {i}?") for i in range(count)]
    images = [tuple(_images(side, 1))] * count
    records = []
    for start in range(0, count, 16):
        part = slice(start, start + 16)
        records += model.observe(examples[part], images[part], _harmony_request())
    sure = np.array([record.answer.logprobs.mean() for record in records])
    correct = (sure > np.median(sure)).astype(float)
    parts = split_groups([record.example.group for record in records], (0.4, 0.3, 0.3))
    data = Labelled(tuple(records), correct, np.arange(count), parts)
    policy = fit_policy(["harmony"], data, Target(None, 0.5))
    return PolicyJudge(policy, "0" * 16, (policy.observed_by(_harmony_request(), 0),))


def _harmony_request() -> Any:
    from sightline.core.protocols import Request

    return Request(max_new_tokens=TOKENS, layers=(0.25, 0.5, 0.75, 1.0))


def harmony(name: str, model: Any, judge: Any, side: int, count: int, rounds: int) -> Any:
    """What a policy on HARMONY costs, beside the same answers without any."""
    from sightline.serving.trust import RawScores

    images = _images(side, count)
    plain = RawScores(estimators=(), max_new_tokens=TOKENS)
    ways = {"HARMONY": (judge, images, 16), "no policy": (plain, images, 16)}
    took = _alternating(model, ways, rounds)
    found: dict[str, Any] = {"model": name, "questions": count, "rounds": rounds}
    for i, kind in enumerate(("wall", "cpu")):
        found[f"{kind}_s"] = {way: statistics.median(both[i]) for way, both in took.items()}
        pairs = zip(took["HARMONY"][i], took["no policy"][i], strict=True)
        found[f"cost_{kind}"] = statistics.median(trust / bare for trust, bare in pairs) - 1
    return found


def _embedded(count: int, rounds: int, *, trusted: bool) -> dict[str, Any]:
    from sightline.models.loading import load_model

    name = "embedded:vlm"
    model = load_model(name)
    if trusted:
        # A round takes a sixth of a second: the median of a few would be chance.
        return harmony(name, model, _calibrated(model, 300), 96, count, 8 * rounds)
    # Sixteen at once begin with a batch of one: 48 questions of 2 ms would be beginning and end.
    return engine(name, model, 96, 10 * count, rounds)


def _random(count: int, rounds: int, *, trusted: bool) -> dict[str, Any]:
    from random_llava import build

    name, model = "random LLaVA, 30 M", build()[0]
    if trusted:
        return harmony(name, model, _surer(model, 336, 96), 336, count, rounds)
    return engine(name, model, 336, count, rounds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=1920)
    parser.add_argument("--questions", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parts = ("proxy", "trust", "embedded", "random", "harmony_embedded", "harmony_random")
    parser.add_argument("--only", choices=parts, action="append", help="Just this (repeatable).")
    options = parser.parse_args()
    size = options.questions, options.rounds
    measures = {
        "proxy": lambda: proxy(options.requests),
        "trust": trust,
        "embedded": lambda: _embedded(*size, trusted=False),
        "random": lambda: _random(*size, trusted=False),
        "harmony_embedded": lambda: _embedded(*size, trusted=True),
        "harmony_random": lambda: _random(*size, trusted=True),
    }
    found: dict[str, Any] = {"hardware": hardware("torch", "transformers", "uvicorn", "httpx2")}
    for name in options.only or parts:
        found[name] = measures[name]()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
