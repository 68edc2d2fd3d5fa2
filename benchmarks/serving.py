"""Cost of serving: what the proxy adds, what batching and shared images save, what trust costs.

Prints one JSON document. Everything is measured in one run, ways alternating:

- ``proxy``: an upstream in a process of its own that answers after a fixed 300 ms, asked directly
  and through the server, 32 clients at once; the difference of the medians is what the proxy adds.
  CPU milliseconds per request are the server process's own. Gate: at most 5 ms added.
- ``trust``: confidences from ready records, calibrated log-probability, answers per second on one
  thread. Gate: 1,000 per second.
- ``embedded``, ``random``: 48 questions to a local engine, one at a time and 16 at once, about
  distinct images and about one image, on the embedded model and on a random LLaVA of 30 M
  parameters; the engine is asked directly, without HTTP. Gates: 1.1 × (random, distinct images),
  3 × (random, one image), 4 × (embedded, one image). The same questions with and without the judge
  give what trust costs; gate: at most 5 %.

Run: OMP_NUM_THREADS=2 python benchmarks/serving.py [--requests 640] [--questions 48] [--only proxy]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
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
BODY = {"model": "m", "messages": [{"role": "user", "content": "What is it?"}]}


async def _answers(scope: Any, receive: Any, send: Any) -> None:
    """The upstream: answers after 300 ms."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(0.3)
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


async def _asked(port: int, count: int, clients: int) -> list[float]:
    """Seconds of each request, with that many in flight."""
    import httpx2

    seconds: list[float] = []
    left = iter(range(count))
    async with httpx2.AsyncClient(timeout=30) as client:

        async def ask() -> None:
            for _ in left:
                started = time.perf_counter()
                url = f"http://127.0.0.1:{port}/v1/chat/completions"
                (await client.post(url, json=BODY)).raise_for_status()
                seconds.append(time.perf_counter() - started)

        await asyncio.gather(*(ask() for _ in range(clients)))
    return seconds


def proxy(count: int) -> dict[str, Any]:
    upstream, far = _started(_upstream)
    server, near = _started(_proxy, far)
    try:
        asyncio.run(_asked(near, 64, 32))
        times: dict[str, list[float]] = {"direct": [], "proxied": []}
        cpu = 0.0
        for _ in range(3):
            times["direct"] += asyncio.run(_asked(far, count // 3, 32))
            before = sum(psutil.Process(server.pid).cpu_times()[:2])
            times["proxied"] += asyncio.run(_asked(near, count // 3, 32))
            cpu += sum(psutil.Process(server.pid).cpu_times()[:2]) - before
    finally:
        for process in (server, upstream):
            process.terminate()
    median = {name: 1000 * statistics.median(values) for name, values in times.items()}
    return {
        "requests": len(times["proxied"]),
        "direct_median_ms": median["direct"],
        "proxied_median_ms": median["proxied"],
        "added_ms": median["proxied"] - median["direct"],
        "cpu_ms_per_request": 1000 * cpu / len(times["proxied"]),
    }


def trust(count: int = 2000) -> dict[str, Any]:
    from judges import HalfJudge

    from sightline.core.types import Example, Generation, Record

    rng = np.random.default_rng(0)
    records = [
        Record(Example(str(i), "?"), greedy=Generation("x", logprobs=-rng.random(12)))
        for i in range(count)
    ]
    judge = HalfJudge()
    started = time.perf_counter()
    for record in records:
        judge.judge([record])
    return {"answers_per_second": count / (time.perf_counter() - started)}


async def _engine(model: Any, judge: Any, images: list[Any], clients: int) -> tuple[float, float]:
    """Wall and CPU seconds of one question per image, with that many in flight."""
    from sightline.core.types import Example
    from sightline.serving.engine import Engine

    engine = Engine(model, judge, max_batch=16)
    engine.start()
    left = iter(enumerate(images))

    async def ask() -> None:
        for i, image in left:
            example = Example(f"{i}", f"What colour is the circle {'now ' * (i % 4)}?")
            await engine.observe(example, (image,), judge.requests, deadline=time.monotonic() + 600)

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(ask() for _ in range(clients)))
    took = time.perf_counter() - wall, time.process_time() - cpu
    await asyncio.to_thread(engine.stop)
    return took


def engine(name: str, model: Any, side: int, count: int) -> dict[str, Any]:
    from judges import HalfJudge

    from sightline.serving.trust import RawScores

    rng = np.random.default_rng(0)
    distinct = [
        Image.fromarray(rng.integers(0, 256, (side, side, 3)).astype(np.uint8))
        for _ in range(count)
    ]
    judge = HalfJudge(max_new_tokens=8)
    plain = RawScores(estimators=(), max_new_tokens=8)
    ways = {
        "one at a time": (judge, distinct, 1),
        "16 at once, distinct images": (judge, distinct, 16),
        "16 at once, one image": (judge, [distinct[0]] * count, 16),
        "16 at once, distinct images, no judge": (plain, distinct, 16),
    }
    asyncio.run(_engine(model, judge, [distinct[0]] * 4, 4))
    wall: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(3):
        for way, settings in ways.items():
            took = asyncio.run(_engine(model, *settings))
            wall[way].append(took[0])
            cpu[way].append(took[1])
    least = {way: min(values) for way, values in cpu.items()}
    first = "one at a time"
    return {
        "model": name,
        "questions": count,
        "wall_s": {way: min(values) for way, values in wall.items()},
        "cpu_s": least,
        "speed_up_cpu": {way: least[first] / least[way] for way in ways},
        "speed_up_wall": {way: min(wall[first]) / min(wall[way]) for way in ways},
        "judge_overhead_cpu": least["16 at once, distinct images"]
        / least["16 at once, distinct images, no judge"]
        - 1,
    }


def _embedded(count: int) -> dict[str, Any]:
    from sightline.models.loading import load_model

    return engine("embedded:vlm", load_model("embedded:vlm"), 96, count)


def _random(count: int) -> dict[str, Any]:
    from random_llava import build

    return engine("random LLaVA, 30 M", build()[0], 336, count)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=640)
    parser.add_argument("--questions", type=int, default=48)
    parts = ("proxy", "trust", "embedded", "random")
    parser.add_argument("--only", choices=parts, action="append", help="Just this (repeatable).")
    options = parser.parse_args()
    measures = {
        "proxy": lambda: proxy(options.requests),
        "trust": trust,
        "embedded": lambda: _embedded(options.questions),
        "random": lambda: _random(options.questions),
    }
    found: dict[str, Any] = {"hardware": hardware("torch", "transformers", "uvicorn", "httpx2")}
    for name in options.only or parts:
        found[name] = measures[name]()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
