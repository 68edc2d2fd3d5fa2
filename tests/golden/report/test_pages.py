"""The words and numbers of the page and of the terminal, as they were last approved.

``results.json`` is a file of format version 1 (synthetic answers, few points per curve), so these
tests also hold that such a file can be read and shown for ever. To approve a change of the pages:
SIGHTLINE_UPDATE_GOLDEN=1 python -m pytest tests/golden/report, and read the difference.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from evaluations import bare

from sightline.core.results import Evaluation, load_evaluation
from sightline.report.render import render_report
from sightline.report.terminal import print_leaderboard

FOLDER = Path(__file__).parent
RUN = load_evaluation(FOLDER / "results.json")
OTHER = replace(
    RUN,
    run=replace(RUN.run, model="Qwen2.5-VL-3B-Instruct", partial=None),
    estimators=RUN.estimators[1:],
)
BARE = bare(RUN)


def page(*runs: Evaluation) -> str:
    """The page without its drawings (their bytes depend on matplotlib) and its style sheet."""
    text = render_report(runs, image_bytes=lambda *_: None)
    text = re.sub(r'<svg class="chart".*?</svg>', "<svg/>", text, flags=re.DOTALL)
    return re.sub(r"<style>.*?</style>", "<style/>", text, flags=re.DOTALL)


def leaderboard(*runs: Evaluation) -> str:
    out = io.StringIO()
    for run in runs:
        print_leaderboard(run, file=out)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("one.html", lambda: page(RUN)),
        ("two.html", lambda: page(RUN, OTHER)),
        ("bare.html", lambda: page(BARE)),
        ("leaderboard.txt", lambda: leaderboard(RUN, BARE)),
    ],
)
def test_it_reads_as_approved(name: str, make: Callable[[], str]) -> None:
    path = FOLDER / name
    text = make()
    if os.environ.get("SIGHTLINE_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
