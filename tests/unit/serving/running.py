"""A server on a real socket in a thread of the test's process."""

from __future__ import annotations

import base64
import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from PIL import Image

from sightline.data.images import image_extension
from sightline.models.fake import FakeModel
from sightline.serving.app import create_app
from sightline.serving.protocol import protocol_class
from sightline.serving.server import Settings, backend_of, listen
from sightline.serving.shared import Server


@dataclass
class Running:
    """A listening server."""

    server: Server
    port: int

    def call(
        self,
        path: str,
        body: Any = None,
        *,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, document (or bytes) and headers of one request."""
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            sent = {"content-type": "application/json", **(headers or {})}
            connection.request(method or ("GET" if body is None else "POST"), path, raw, sent)
            answer = connection.getresponse()
            data = answer.read()
            found = {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()
        is_json = found.get("content-type", "").startswith("application/json")
        return answer.status, json.loads(data) if is_json and data else data, found

    def chat(self, question: str = "What is it?", **fields: Any) -> tuple[int, Any, dict[str, str]]:
        """Asks one question."""
        body = {"messages": [{"role": "user", "content": question}], **fields}
        return self.call("/v1/chat/completions", body)

    @staticmethod
    def last(stream: bytes) -> Any:
        """The last document of a stream that ended well."""
        *_, last, done = stream.decode().removesuffix("\n\n").split("\n\n")
        assert done == "data: [DONE]", done
        return json.loads(last.removeprefix("data:"))

    def works(self) -> bool:
        """Whether an ordinary question is answered."""
        return self.chat()[0] == 200


@contextmanager
def running(
    model: Any = None, judge: Any = None, server: Server | None = None, **settings: Any
) -> Iterator[Running]:
    """Serves a model until the block ends.

    Args:
        model: The model; the fake one if None.
        judge: Judges its answers; raw scores if None.
        server: Serve this one instead.
        settings: Fields of `Settings` and of `Server`.
    """
    own = {k: settings.pop(k) for k in ("feedback", "has_policy") if k in settings}
    asked = Settings(model="fake", **settings)
    if server is None:
        backend = backend_of(asked, model or FakeModel(), judge, own.get("feedback"))
        server = Server(
            backend=backend,
            limits=asked.limits,
            mode=asked.mode,
            keys=asked.keys,
            strict=asked.strict,
            **own,
        )
    config = uvicorn.Config(
        create_app(server),
        http=protocol_class(asked.limits),
        ws="none",
        lifespan="on",
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=2 * asked.limits.max_header_bytes,
    )
    listening = listen("127.0.0.1", 0)
    serving = uvicorn.Server(config)
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not serving.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        yield Running(server, listening.getsockname()[1])
    finally:
        serving.should_exit = True
        thread.join(30)
        listening.close()


def picture(colour: str = "red", size: tuple[int, int] = (32, 24), kind: str = "PNG") -> bytes:
    """An image file."""
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


def data_url(data: bytes, kind: str | None = None) -> str:
    """A data URL, of the type that the bytes begin like where none is given."""
    found = image_extension(data) or "png"
    own = "image/jpeg" if found == "jpg" else f"image/{found}"
    return f"data:{kind or own};base64,{base64.b64encode(data).decode()}"


def with_image(question: str, *urls: str) -> list[dict[str, Any]]:
    """Messages of one question about images."""
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]
