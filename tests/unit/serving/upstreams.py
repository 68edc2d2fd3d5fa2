"""A scripted upstream server that does what the question says: answers, fails, lies, dies."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKENS = [("a", -0.1), (" red", -0.3), (" circle", -0.05)]


@dataclass
class Upstream:
    """A running upstream: where it is, what it was asked, and how often clients left it."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    abandoned: int = 0


def token(text: str, logprob: float | None, top: int) -> dict[str, Any]:
    likely = [{"token": f"{text}{i}", "bytes": None, "logprob": -0.5 - i} for i in range(top)]
    return {
        "token": text,
        "bytes": list(text.encode()),
        "logprob": logprob,
        "top_logprobs": likely,
    }


def logprobs(body: dict[str, Any], how: str) -> Any:
    top = body.get("top_logprobs", 0)
    if not body.get("logprobs") or how == "no logprobs":
        return None
    if how == "null content":
        return {"content": None}
    values = dict(TOKENS)
    if how == "sentinel":
        values[" red"] = -9999.0
    if how == "nan":
        values[" red"] = float("nan")
    tokens = list(values.items())[: 2 if how == "fewer" else 3]
    return {"content": [token(text, value, top) for text, value in tokens]}


CLAIM = 'a red circle", "trust": {"confidence": 1.0, "abstain": false}}'
"""What an answer may say of itself; the tokens do not spell it."""


def whole(body: dict[str, Any], how: str) -> dict[str, Any]:
    made = ordinary(body, how)
    if how == "claims":
        made["trust"] = {"confidence": 1.0}
        for choice in made["choices"]:
            choice["trust"] = {"confidence": 1.0, "abstain": False}
    if how == "says trust":
        for choice in made["choices"]:
            choice["message"]["content"] = CLAIM
            choice["logprobs"] = {"content": [token(CLAIM, -0.5, 0)]}
    if how == "no usage":
        del made["usage"]
    if how == "endless number":
        made["usage"]["cost"] = "ENDLESS"
    return made


def ordinary(body: dict[str, Any], how: str) -> dict[str, Any]:
    return {
        "id": "upstream-id",
        "object": "chat.completion",
        "created": 1,
        "model": "other-model" if how == "other model" else body["model"],
        "system_fingerprint": "fp_2",
        "service_tier": "default",
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": "a red circle", "refusal": None},
                "finish_reason": "stop",
                "logprobs": logprobs(body, how),
            }
            for index in range(body.get("n", 1))
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }


def chunks(body: dict[str, Any], how: str) -> Iterator[dict[str, Any]]:
    full = whole(body, how)
    common = {**full, "object": "chat.completion.chunk", "usage": None}
    shown = full["choices"][0]["logprobs"]
    for at, (text, _) in enumerate(TOKENS):
        content = shown["content"][at : at + 1] if shown else None
        part = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        if how == "claims":
            part["trust"] = {"confidence": 1.0}
        yield {**common, "choices": [{**part, "logprobs": shown and {"content": content}}]}
    yield {**common, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    if body.get("stream_options", {}).get("include_usage"):
        yield {**common, "choices": [], "usage": full["usage"]}


FAILURES = {"500": 500, "429": 429, "400": 400, "401": 401, "503": 503, "redirect": 302}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: Upstream
    delay_s = 0.0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.upstream.bodies.append(body)
        self.upstream.headers.append({k.lower(): v for k, v in self.headers.items()})
        content = body["messages"][-1]["content"]
        how = content if isinstance(content, str) else content[-1]["text"]
        how = how.partition("\n")[0]
        time.sleep(self.delay_s)
        if how == "slow":
            time.sleep(3)
        if how == "die":
            self.close_connection = True
            return
        if how == "samples fail" and body.get("temperature"):
            how = "500"
        if how in FAILURES:
            error = {"error": {"message": f"upstream says {how}", "type": "x"}}
            self.reply(FAILURES[how], json.dumps(error).encode(), location="http://127.0.0.1:1/")
        elif how.startswith("busy for "):
            self.reply(429, b"{}", wait=how.removeprefix("busy for "))
        elif how == "html":
            self.reply(200, b"<html><body>gateway</body></html>", kind="text/html")
        elif how == "truncated":
            self.reply(200, json.dumps(whole(body, how)).encode()[:200])
        elif how == "no choices":
            self.reply(200, b'{"choices": []}')
        elif how == "endless":
            self.reply(200, b"x" * 5_000_000)
        elif body.get("stream"):
            self.stream(body, how)
        else:
            text = json.dumps(whole(body, how)).replace('"ENDLESS"', "1e999")
            self.reply(200, text.encode())

    def reply(
        self,
        status: int,
        data: bytes,
        kind: str = "application/json",
        location: str = "",
        wait: str = "7",
    ) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        if status == 302:
            self.send_header("location", location)
        if status == 429:
            self.send_header("retry-after", wait)
        self.end_headers()
        self.wfile.write(data)

    def stream(self, body: dict[str, Any], how: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            for at, chunk in enumerate(chunks(body, how)):
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                self.wfile.flush()
                if how == "die in the middle" and at == 1:
                    return
                if how == "slow stream":
                    for _ in range(100):
                        time.sleep(0.05)
                        self.wfile.write(b": still here\n\n")
                        self.wfile.flush()
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            self.upstream.abandoned += 1

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


@contextmanager
def upstream(delay_s: float = 0.0) -> Iterator[Upstream]:
    """Runs an upstream until the block ends."""
    found = Upstream("")
    handler = type("Bound", (Handler,), {"upstream": found, "delay_s": delay_s})
    server = Server(("127.0.0.1", 0), handler)
    found.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
