"""From labelled answers to a policy to a served probability, with OpenAI's own client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "serving"))

from judges import HalfJudge
from running import Running, data_url, picture, running, with_image
from upstreams import upstream

from sightline.cli import cli
from sightline.core.errors import SightlineError
from sightline.serving.forwarding import Served
from sightline.serving.server import Settings, listen, proxy_of
from sightline.serving.shared import Server

openai = pytest.importorskip("openai", reason="the dev extra is not installed")


def command(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sightline", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def refused(*args: object, code: int = 2) -> str:
    """What the command says in its one line before it ends with that code."""
    words = ["serve", "--port", "0", *map(str, args)]
    with pytest.raises((SightlineError, click.UsageError)) as error:
        cli.main(words, prog_name="sightline", standalone_mode=False)
    assert error.value.exit_code == code
    found = error.value
    line = found.format_message() if isinstance(found, click.UsageError) else str(found)
    assert "\n" not in line
    return line


@contextmanager
def served(*args: object, env: dict[str, str] | None = None) -> Iterator[Running]:
    """``sightline serve`` in a process of its own, on a free port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sightline", "serve", "-m", "fake", "--port", "0", *map(str, args)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert "http://127.0.0.1:" in line, line + process.stderr.read()
        yield Running(None, int(line.rpartition(":")[2]))  # type: ignore[arg-type]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGTERM


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of the model without weights, whose answers to these questions are known."""
    from sightline import api

    folder = tmp_path_factory.mktemp("policy")
    rows = [
        {"id": str(i), "question": f"Question {i}?", "answer": "yes" if i % 3 else "no"}
        for i in range(400)
    ]
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    api.collect("fake", folder / "q.jsonl", folder / "run", estimators=("sequence_probability",))
    made = command(
        "calibrate",
        folder / "run",
        "-e",
        "sequence_probability",
        "--risk",
        "0.9",
        "-o",
        folder / "policy",
    )
    assert made.returncode in (0, 3), made.stderr
    return folder / "policy"


def test_the_command_serves_a_policy(policy: Path, tmp_path: Path) -> None:
    with served(
        "--policy",
        policy,
        "--feedback",
        tmp_path / "outcomes",
        "--api-key-env",
        "KEY",
        env={"KEY": "secret"},
    ) as server:
        base = f"http://127.0.0.1:{server.port}/v1"
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=base, api_key="wrong", max_retries=0).models.list()
        client = openai.OpenAI(base_url=base, api_key="secret", max_retries=0)
        (model,) = client.models.list().data
        assert model.id == "fake"
        assert model.policy["estimators"] == ["sequence_probability"]
        answer = client.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "Question 5?"}]
        )
        trust = answer.choices[0].trust
        assert 0 < trust["confidence"] < 1
        assert trust["calibrator"].startswith("sequence_probability@sha256:")
        assert trust["abstain"] in (True, False)
        body = {"receipt": trust["receipt"], "correct": True}
        kept = client.post("/feedback", body=body, cast_to=object)
        assert kept["new"] is True
        with pytest.raises(openai.BadRequestError, match="n is 17"):
            client.chat.completions.create(
                model="fake", n=17, messages=[{"role": "user", "content": "x"}]
            )


def test_a_refusal_is_one_line_and_a_code() -> None:
    result = command("serve", "-m", "fake", "--host", "0.0.0.0")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("sightline: --host 0.0.0.0 can be reached from other machines")


def test_what_is_refused_before_a_port_opens(policy: Path, tmp_path: Path) -> None:
    assert "can be reached from other machines" in refused("-m", "fake", "--host", "0.0.0.0")
    assert "nowhere" in refused("-m", "nowhere")
    line = refused("-m", "fake", "--on-low-trust", "refuse")
    assert "--on-low-trust refuse without --policy" in line
    assert "--feedback without --policy" in refused("-m", "fake", "--feedback", tmp_path / "f")
    assert "--cache-salt without --upstream" in refused("-m", "fake", "--cache-salt")
    assert "is empty or not set" in refused("-m", "fake", "--api-key-env", "SIGHTLINE_NO_SUCH")
    assert "has no policy.json" in refused("-m", "fake", "--policy", tmp_path)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "policy.json").write_bytes((policy / "policy.json").read_bytes()[:-40])
    assert "damaged" in refused("-m", "fake", "--policy", damaged, code=5)
    assert "embedded:vlm" in refused("-m", "embedded:vlm", "--policy", policy)
    pickled = tmp_path / "policy.pkl"
    pickled.write_bytes(b"\x80\x04")
    refused("-m", "fake", "--policy", pickled)
    line = refused("-m", "m", "--upstream", "http://127.0.0.1:1/v1", "--policy", policy)
    assert "fitted on fake and the upstream's model is m" in line
    line = refused("-m", "fake", "--upstream", "http://127.0.0.1:1/v1", "--policy", policy)
    assert "a model that was loaded, not asked over an endpoint" in line
    assert "Base URL" in refused("-m", "m", "--upstream", "file:///etc/passwd")


@pytest.mark.parametrize("upstream_flags", [(), ("--upstream", "http://127.0.0.1:1/v1")])
def test_raw_scores_that_cannot_be_shown_are_refused(upstream_flags: tuple[str, ...]) -> None:
    model = ("-m", "fake", *upstream_flags)
    assert "Estimator 'nosuch' does not exist" in refused(*model, "-e", "nosuch")
    assert "has no setting 'x'" in refused(*model, "-e", "perplexity:x=1")
    line = refused(*model, "-e", "sequence_probability", "-e", "linear_probe")
    assert "linear_probe learns from labelled answers" in line
    assert "reads conditions" in refused(*model, "-e", "condition_agreement")
    if upstream_flags:
        assert "reads sample_hidden" in refused(*model, "-e", "eigenscore")


def test_a_policy_is_read_before_the_model_is_loaded(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(
        "sightline.models.loading.load_model", lambda name, **_: loaded.append(name)
    )
    assert "has no policy.json" in refused("-m", "embedded:vlm", "--policy", tmp_path)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "policy.json").write_bytes((policy / "policy.json").read_bytes()[:-40])
    assert "damaged" in refused("-m", "embedded:vlm", "--policy", damaged, code=5)
    assert "Estimator 'nosuch' does not exist" in refused("-m", "embedded:vlm", "-e", "nosuch")
    assert loaded == []


def test_a_port_in_use_is_found_before_anything_is_loaded(
    policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(
        "sightline.models.loading.load_model", lambda name, **_: loaded.append(name)
    )
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        line = refused("-m", "fake", "--policy", policy, "--port", port)
        assert f"Cannot listen on 127.0.0.1:{port} (Address already in use)" in line
        assert "has no policy.json" not in refused("-m", "fake", "--policy", "x", "--port", port)
        line = refused("-m", "fake", "--host", "0.0.0.0", "--port", port)
        assert "a bearer key is required" in line, "what is said of the flags comes first"
    assert loaded == []


@pytest.mark.parametrize("upstream_flags", [(), ("--upstream", "http://127.0.0.1:1/v1")])
def test_raw_scores_beside_a_policy_are_refused(
    policy: Path, upstream_flags: tuple[str, ...]
) -> None:
    model = ("-m", "fake", "--policy", policy, *upstream_flags)
    line = refused(*model, "-e", "perplexity")
    assert "--estimator perplexity with --policy" in line
    assert "Leave one of them out" in line


TIMES = ("--header-timeout", "--body-timeout", "--write-timeout", "--request-timeout")


@pytest.mark.parametrize("flag", [*TIMES, "--batch-window"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1e300", "soon"])
def test_times_are_finite(flag: str, value: str) -> None:
    assert flag in refused("-m", "fake", flag, value)
    if flag in TIMES:
        assert flag in refused("-m", "fake", flag, "0")


QUESTION = [{"role": "user", "content": "What is it?"}]


def client_of(server: Running) -> openai.OpenAI:
    base = f"http://127.0.0.1:{server.port}/v1"
    return openai.OpenAI(base_url=base, api_key="none", max_retries=0)


@contextmanager
def both(threshold: float, mode: str = "flag") -> Iterator[list[openai.OpenAI]]:
    """Clients of a local server and of a proxy, with the same judge."""
    with (
        upstream() as behind,
        running(judge=HalfJudge(threshold), has_policy=True, mode=mode) as local,
    ):
        asked = Settings("fake", upstream=behind.url)
        judge = HalfJudge(threshold)
        backend = proxy_of(asked, Served("fake", frozenset({"fake"})), judge, None)
        own = Server(backend=backend, has_policy=True, mode=mode)  # type: ignore[arg-type]
        with running(server=own) as proxy:
            yield [client_of(local), client_of(proxy)]


def test_the_official_client_reads_trust_whole_and_streamed() -> None:
    with both(0.01) as clients:
        for client in clients:
            whole = client.chat.completions.create(model="fake", messages=QUESTION, logprobs=True)
            choice = whole.choices[0]
            assert choice.trust["abstain"] is False
            assert choice.logprobs.content[0].logprob <= 0
            stream = client.chat.completions.create(
                model="fake", messages=QUESTION, stream=True, stream_options={"include_usage": True}
            )
            parts = list(stream)
            said = "".join(p.choices[0].delta.content or "" for p in parts if p.choices)
            assert said == choice.message.content
            last = next(p for p in parts if p.choices and p.choices[0].finish_reason)
            assert last.choices[0].trust["confidence"] == choice.trust["confidence"]
            assert parts[-1].usage is not None
            answer = client.chat.completions.create(
                model="fake", messages=with_image("What?", data_url(picture()))
            )
            assert answer.choices[0].trust["confidence"] is not None


@pytest.mark.parametrize("mode", ["flag", "refuse"])
def test_the_official_client_reads_refusals(mode: str) -> None:
    with both(0.99, mode) as clients:
        for client in clients:
            extra = {} if mode == "refuse" else {"trust": {"abstain_mode": "refuse"}}
            choice = client.chat.completions.create(
                model="fake", messages=QUESTION, extra_body=extra
            ).choices[0]
            assert choice.message.content is None
            assert choice.message.refusal.startswith("Abstained: confidence 0.")
            assert choice.finish_reason == "stop"
            parts = list(
                client.chat.completions.create(
                    model="fake", messages=QUESTION, stream=True, extra_body=extra
                )
            )
            said = "".join(p.choices[0].delta.refusal or "" for p in parts)
            assert said == choice.message.refusal
            # A client cannot turn refusing off.
            flagged = client.chat.completions.create(
                model="fake", messages=QUESTION, extra_body={"trust": {"abstain_mode": "flag"}}
            ).choices[0]
            assert (flagged.message.content is None) is (mode == "refuse")


def test_the_official_client_reads_decisions() -> None:
    with both(0.0) as clients:
        choices = [{"value": "a red circle"}, {"value": "yes"}, {"value": "no"}]
        decision = clients[1].decisions.create(
            model="fake",
            input=[
                {
                    "role": "user",
                    "content": [
                        {"type": "input_image", "image_url": data_url(picture())},
                        {"type": "input_text", "text": "Look."},
                    ],
                }
            ],
            questions=[
                {"type": "choice", "instructions": "ok", "choices": choices, "name": "what"},
                {"type": "predicate", "instructions": "Is it?"},
                {
                    "type": "score",
                    "instructions": "How red?",
                    "levels": [{"label": "not"}, {"label": "a red circle"}],
                },
            ],
        )
        first, second, third = decision.answers
        assert (first.type, first.choice, first.name) == ("choice", "a red circle", "what")
        assert sum(p.probability for p in first.probabilities) == pytest.approx(1)
        assert second.type == "refusal"  # "a red circle" is neither yes nor no
        assert third.score == pytest.approx(third.confidence)


def test_decisions_as_a_form() -> None:
    with running(judge=HalfJudge(0.0), has_policy=True) as server:
        request = {"input": "Look.", "questions": [{"type": "predicate", "instructions": "Red?"}]}
        form = (
            b'--x\r\ncontent-disposition: form-data; name="request"\r\n\r\n'
            + json.dumps(request).encode()
            + b'\r\n--x\r\ncontent-disposition: form-data; name="image"; filename="a.png"\r\n'
            b"content-type: image/png\r\n\r\n" + picture() + b"\r\n--x--\r\n"
        )
        headers = {"content-type": "multipart/form-data; boundary=x"}
        status, document, _ = server.call("/v1/decisions", form, headers=headers)
        assert status == 200
        assert document["answers"][0]["type"] in ("predicate", "refusal")
        for broken in (form[:-30], form.replace(b'name="request"', b'name="other"'), b"", b"x"):
            status, document, _ = server.call(
                "/v1/decisions", broken, method="POST", headers=headers
            )
            assert status == 400, document
