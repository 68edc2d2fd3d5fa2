"""Audits of little, or of nothing that counts: what cannot be said is said to be so."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from sightline.cli import cli
from sightline.core.errors import SightlineError, UsageError
from sightline.core.estimates import Estimate
from sightline.core.protocols import Request
from sightline.core.types import Example, ImageRef
from sightline.data.examples import Dataset
from sightline.data.images import ImageLimits, hash_image_file
from sightline.models.fake import FakeModel
from sightline.report.audit_terminal import print_audit
from sightline.report.render import write_audit_report
from sightline.store.run import RunStore
from sightline.workflow.auditing.running import AuditSettings, audit_run
from sightline.workflow.collect import collect

SETTINGS = AuditSettings(resamples=100, spectra=4)
REQUEST = Request(max_new_tokens=4, layers=(1.0,), channels=True)


def run_of(folder, *conditions, n=4, question="What animal is this?", sizes=(), channels=True):
    rng = np.random.default_rng(0)
    examples = []
    for i in range(n):
        path = folder / f"{i}.png"
        height, width = sizes[i] if i < len(sizes) else (16, 20)
        pixels = rng.integers(1, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        image = ImageRef(str(path), hash_image_file(path, ImageLimits()))
        examples.append(Example(f"e{i:02d}", question, (image,), references=("cat",)))
    request = replace(REQUEST, conditions=conditions, channels=channels)
    data = Dataset("made", tuple(examples), (), "0" * 64)
    collect(FakeModel(), data, folder / "run", request=request, batch_size=4, shard_size=8)
    return folder / "run"


def printed(audit):
    out = io.StringIO()
    print_audit(audit, file=out)
    return " ".join(out.getvalue().split())


def test_a_partial_run_and_why_nothing_was_decided_are_each_said_once(tmp_path):
    audit = audit_run(run_of(tmp_path, "jpeg:1"), SETTINGS).audit
    (finding,) = audit.findings
    why = "no condition counts about 20 pictures of each"
    unknown = replace(finding, reason=why, estimate=Estimate(None, None, None, 0, why))
    audit = replace(audit, partial="--limit 4: the first 4", findings=(unknown,))
    page = tmp_path / "page.html"
    write_audit_report([audit], page)
    for text in (printed(audit), page.read_text(encoding="utf-8")):
        assert text.count(why) == 1
    assert "partial: --limit 4: the first 4" in printed(audit)
    assert "Partial run: <bdi>--limit 4: the first 4</bdi>" in page.read_text(encoding="utf-8")


def test_too_few_controls_leave_the_share_that_moved_far_undefined(tmp_path):
    """Four questions about four pictures: no share, no verdict, no sentence."""
    audit = audit_run(run_of(tmp_path, "jpeg:1"), SETTINGS).audit
    assert audit.protocol.flag_rule.startswith("not decided: 12 control values")
    assert audit.moved_far.value is None
    assert audit.moved_far.reason == audit.protocol.flag_rule
    assert audit.moved_far.n == 4 - round(4 * audit.rates[0].ifr.value)
    (finding,) = audit.findings
    assert finding.outcome == "undecided"
    assert "moved as far as an unrelated picture (" not in printed(audit)


def test_few_pictures_decide_nothing_about_hidden_drift(tmp_path):
    """Many control values and pairs, but of 8 pictures: one of them is more than the 5 % asked."""
    audit = audit_run(run_of(tmp_path, "jpeg:1", "scale:0.9", "pad:4", n=8), SETTINGS).audit
    assert audit.moved_far.value is not None
    (finding,) = audit.findings
    assert finding.outcome == "undecided"
    assert finding.reason.endswith("pictures, and 20 are required")
    assert "the control (another" in finding.rule
    assert "on at least 20 pictures" in finding.rule


def test_ordinary_questions_count_under_mild_changes_and_the_rest_is_told_apart(tmp_path):
    run = run_of(tmp_path, "jpeg:1", "rotate:30", n=6)
    audit = audit_run(run, SETTINGS).audit
    by_name = {rates.name: rates for rates in audit.rates}
    assert (by_name["jpeg:1"].pairs, by_name["rotate:30"].pairs) == (6, 0)
    assert (by_name["jpeg:1"].undecided.n, by_name["rotate:30"].undecided.n) == (0, 6)
    assert by_name["all"].pairs == by_name["all"].undecided.n == 6
    assert by_name["all"].ifr == by_name["jpeg:1"].ifr
    assert audit.warning is None
    assert "not counted: 6 pairs, whether the right answer stays is not known; " in printed(audit)
    named = audit_run(run, replace(SETTINGS, preserving=("rotate:30",))).audit
    assert named.protocol.preserving == ("rotate:30",)
    own = {rates.name: rates for rates in named.rates}["rotate:30"]
    assert own.pairs == 6
    assert own.ifr.value == by_name["rotate:30"].undecided.value
    assert own.undecided.n == 0
    assert named.protocol.named_pairs == 6
    assert "counted since said to keep the answer (rotate:30): 6 pairs" in printed(named)
    other = audit_run(run, replace(SETTINGS, preserving=("crop",))).audit
    assert other.protocol.named_pairs == 0
    assert other.rates == audit.rates


def test_no_scene_is_overruled(tmp_path):
    """The truth of generated pictures is computed; also where it takes the clean answer."""
    flags = ["--conditions", "rotate:30,text:1,answer_text:1,blank", "--limit", "8"]
    command = ["audit", "-m", "fake", "-d", "scenes:test?n=8", "-o", str(tmp_path / "run")]
    found = CliRunner().invoke(cli, [*command, *flags, "--resamples", "100"])
    assert found.exit_code == 0, found.output
    plain, named = (
        audit_run(tmp_path / "run", replace(SETTINGS, preserving=own)).audit
        for own in ((), ("published", "text", "blank"))
    )
    assert plain.rates[0].undecided.n > 0
    assert named.protocol.named_pairs == 0
    assert named.rates == plain.rates


def test_where_nothing_counts_a_line_says_what_to_do(tmp_path):
    audit = audit_run(run_of(tmp_path, "rotate:30"), SETTINGS).audit
    assert audit.warning.startswith("None of 4 pairs of changed pictures counts")
    assert "--preserving" in audit.warning
    assert "\n" not in audit.warning
    assert audit.warning in printed(audit)
    write_audit_report([audit], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert audit.warning in page
    assert "Of 0 answers" not in page
    assert audit.rates[0].ifr.value is None
    assert audit.no_spectra == "No spectra: no pair with a changed picture counts"


def test_a_run_of_wordings_alone_says_so(tmp_path):
    audit = audit_run(run_of(tmp_path, "wording:1"), SETTINGS).audit
    assert audit.warning.startswith("No condition changes the picture alone")
    assert audit.no_spectra == "No spectra: no pair with a changed picture counts"
    assert {rates.name: rates.part for rates in audit.rates}["wording"] == "wording"
    assert "no question of the run has a picture" not in printed(audit)


def test_a_picture_of_one_pixel_is_left_out_of_the_spectra_and_counted(tmp_path):
    audit = audit_run(run_of(tmp_path, "jpeg:1", sizes=((1, 1), (1, 2))), SETTINGS).audit
    assert [(s.n, s.reason) for s in audit.spectra_skipped] == [
        (1, "a picture of 1 × 1 pixels has no 3 bands")
    ]
    assert audit.protocol.spectra_pictures == 3
    assert audit.no_spectra is None
    assert "no spectrum: 1 questions, a picture of 1 × 1 pixels has no 3 bands" in printed(audit)


def test_a_run_without_channels_says_nothing_of_drift(tmp_path):
    run = run_of(tmp_path, "jpeg:1", channels=False)
    text = printed(audit_run(run, SETTINGS).audit)
    assert "drift" not in text
    assert "R→W" in text
    with pytest.raises(UsageError, match="collected without channels"):
        audit_run(run, replace(SETTINGS, channel="ctx_mcq"))


def test_open_questions_have_no_options_to_name(tmp_path):
    run = run_of(tmp_path, "answer_text:1", "jpeg:1")
    assert {row.reason for row in RunStore.open(run).refused()} == {
        "the question has no options that a text could name"
    }


@pytest.mark.parametrize("conditions", ["blank", "clean", "blank,clean", "", " "])
def test_conditions_without_a_perturbation_are_refused_before_anything_is_collected(
    tmp_path, conditions
):
    command = ["audit", "-m", "fake", "-d", "scenes:test?n=2", "-o", str(tmp_path / "run")]
    result = CliRunner().invoke(cli, [*command, "--conditions", conditions])
    assert isinstance(result.exception, UsageError)
    assert "at least one" in str(result.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--channel", "nothing"], "one of ctx_open"),
        (["--preserving", "nothing"], "nothing"),
        (["--sizes", "inf"], "a number of parameters for each"),
        (["--sizes", "nan"], "a number of parameters for each"),
        (["--sizes", "-1"], "a number of parameters for each"),
        (["--sizes", "7e9,"], "a number of parameters for each"),
        (["--sizes", "7e9,13e9"], "for 1 runs"),
        (["--conditions", "pad:2651"], "at most 40000000 in all"),
        (["--conditions", "pad:1000+pad:1000+pad:1000"], "at most 40000000 in all"),
    ],
)
def test_flags_are_refused_in_one_line_before_anything_is_collected(tmp_path, flags, said):
    command = ["audit", "-m", "fake", "-d", "scenes:test?n=2", "-o", str(tmp_path / "run")]
    result = CliRunner().invoke(cli, [*command, *flags])
    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("display", "said"), [("plain", ["measuring run"]), ("none", [])])
def test_measuring_is_said_before_it_takes_its_time(tmp_path, display, said):
    command = ["audit", str(run_of(tmp_path, "jpeg:1")), "--resamples", "100", "--json"]
    found = CliRunner().invoke(cli, [*command, "--display", display])
    assert found.exit_code == 0, found.output
    assert found.stderr.splitlines() == said


def test_conditions_that_keep_answers_are_read_from_a_file_and_kept_in_the_audit(tmp_path):
    run = run_of(tmp_path, "crop:4", "rotate:30")
    listed = tmp_path / "mine.yaml"
    listed.write_text("- crop: [4, 8]\n")
    command = ["audit", str(run), "--preserving", str(listed), "--resamples", "100", "--json"]
    found = CliRunner().invoke(cli, command)
    assert found.exit_code == 0, found.output
    (audit,) = json.loads(found.stdout)["audits"]
    assert audit["protocol"]["preserving"] == ["crop:4", "crop:8"]
    assert audit["protocol"]["named_pairs"] == 4
    assert audit["rates"][0]["pairs"] == 4


def kept_files(run):
    """What an audit wrote into a run, byte for byte."""
    found = [*(run / "audit").rglob("*"), *(run / "derived").rglob("*")]
    return {path: path.read_bytes() for path in found if path.is_file()}


def command(*arguments):
    return CliRunner().invoke(cli, ["audit", *map(str, arguments), "--resamples", "100"])


def test_setting_runs_side_by_side_leaves_their_audits_as_they_are(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first = run_of(tmp_path / "a", "jpeg:1", "rotate:30", "noise:1", n=8)
    second = run_of(tmp_path / "b", "jpeg:1", "rotate:30", "noise:1", n=8)
    own = ("--channel", "vision_projected", "--budget", "2", "--geometry")
    alone = command(first, *own, "--preserving", "rotate:30")
    assert alone.exit_code == 0, alone.output
    before = kept_files(first)
    assert {"audit.json", "audit.csv", "report.html"} <= {path.name for path in before}
    assert any(path.suffix == ".parquet" or "derived" in path.parts for path in before)

    beside = command(first, second)
    assert beside.exit_code == 0, beside.output
    assert "of an earlier audit, and stays as it is" in beside.stderr
    assert "comparison.html" in beside.stdout
    page = first / "audit" / "comparison.html"
    assert kept_files(first) == {**before, page: page.read_bytes()}
    assert "Side by side" in page.read_text(encoding="utf-8")
    other = kept_files(second)  # one that had no audit has one now
    assert {path.name for path in other} >= {"audit.json", "audit.csv"}

    again = command(second, "--against", first)
    assert again.exit_code == 0, again.output
    assert kept_files(first) == {**before, page: page.read_bytes()}
    assert other.items() <= kept_files(second).items()
    assert command(first).exit_code == 0  # alone, a run is measured anew
    assert kept_files(first) != before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--entailment", "/nonexistent/model"), "/nonexistent/model does not exist"),
        (("--against", "/nonexistent/run"), "/nonexistent/run is not a run"),
        (("--against", "clean/run"), "has no answer under a perturbation"),
        (("--against", "new"), "is not a run"),
        (("--sizes", "7e9"), "sizes compare two runs or more"),
        (("--sizes", "7e9,13e9"), "for 1 runs; a number of parameters for each"),
    ],
)
def test_what_could_not_be_compared_is_refused_before_anything_is_collected(
    flags, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clean").mkdir()
    run_of(tmp_path / "clean")
    result = command("-m", "fake", "-d", "scenes:test?n=4", "-o", "new", *flags)
    assert isinstance(result.exception, SightlineError)
    assert message in str(result.exception)
    assert not (tmp_path / "new").exists()


def test_every_run_is_opened_before_the_first_is_measured(tmp_path):
    run = run_of(tmp_path, "jpeg:1")
    result = command(run, tmp_path / "missing")
    assert "missing is not a run" in str(result.exception)
    result = command(run, "--against", run)
    assert "the audited run itself" in str(result.exception)
    assert not (run / "audit").exists()


def test_questions_without_pictures_are_on_none(tmp_path):
    examples = tuple(
        Example(f"t{i}", "What animal is this?", references=("cat",)) for i in range(4)
    )
    request = replace(REQUEST, conditions=("wording:1", "jpeg:1"))
    data = Dataset("text", examples, (), "0" * 64)
    collect(FakeModel(), data, tmp_path / "run", request=request, batch_size=4, shard_size=8)
    found = audit_run(tmp_path / "run", SETTINGS).audit
    assert (found.items, found.images) == (4, 0)
    assert found.no_energy == "no question has a picture"
    write_audit_report([found], tmp_path / "page.html")
    page = " ".join((tmp_path / "page.html").read_text(encoding="utf-8").split())
    assert "collected without" not in page
    assert "no question has a picture" in page
    assert "No pair of changed pictures that counts has a channel." in page
    assert "-density-" not in page  # nothing moved, and nothing is drawn
    assert "4 questions on no picture under 1 condition " in printed(found)


def test_one_of_each_is_said_in_the_singular_and_has_no_interval(tmp_path):
    """One picture has no interval over pictures, whether one of its pairs counts or several."""
    for name, conditions in (("one", ("jpeg:1",)), ("two", ("jpeg:1", "noise:1"))):
        (tmp_path / name).mkdir()
        found = audit_run(run_of(tmp_path / name, *conditions, n=1), SETTINGS).audit
        shares = (found.rates[0].ifr, found.rates[0].iv, found.rates[0].accuracy_before)
        assert all(own.value is not None and own.low is None for own in shares)
        assert "1 question on 1 picture under" in printed(found)
        assert ("under 1 condition " in printed(found)) == (name == "one")
        (tmp_path / name / "page.html").unlink(missing_ok=True)
        write_audit_report([found], tmp_path / name / "page.html")
        page = " ".join((tmp_path / name / "page.html").read_text(encoding="utf-8").split())
        assert "1 questions" not in page
        assert "1 pictures" not in page
