"""Per-sample logs of lmms-eval (``--log_samples``).

Each line of ``<date>_samples_<task>.jsonl`` has ``doc_id``, ``doc`` (the data set's row without
its images), ``target``, ``input`` or ``arguments`` (the prompt), ``filtered_resps`` (the answer),
``resps`` where it differs from that, and one key per metric of the task. The file lies in a folder
named after the model, with ``__`` for ``/``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError
from sightline.data.fields import shown

_FILE_NAME = re.compile(r"(?:[0-9T_-]+_)?samples_(?P<task>.+)")
_NOT_METRICS = frozenset(
    {"doc_id", "doc", "target", "input", "arguments", "resps", "filtered_resps", "doc_hash"}
    | {"prompt_hash", "target_hash", "token_counts", "submission"}
)
_PREFERRED = ("exact_match", "acc", "accuracy", "relaxed_overall", "vqa_acc", "anls")
_SCORES = ("score", "correct", "hit")
_MULTIPLE_CHOICE = ("options", "choices")


def is_lmms_eval(names: Collection[str]) -> bool:
    """Whether the columns are those of a per-sample log."""
    return "doc_id" in names and ("filtered_resps" in names or "resps" in names)


def lmms_eval_names(path: Path) -> tuple[str, str]:
    """Names of the model and the task, from the folder and the file."""
    found = _FILE_NAME.fullmatch(path.stem)
    folder = path.resolve().parent.name
    return folder.replace("__", "/") or "unnamed", found["task"] if found else path.stem


def lmms_eval_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One line in the names of `import_rows`.

    The recorded correctness is the task's metric: the first of the usual names, else the only one
    with a value between 0 and 1 (or a mapping that has one as its score). A task with several
    others has none, and its answers are graded here.

    Raises:
        DataError: There is no response in a known form.
    """
    doc = row.get("doc")
    doc = doc if isinstance(doc, Mapping) else {}
    out: dict[str, Any] = {
        "id": row.get("doc_id"),
        "question": doc.get("question") or _prompt(row),
        "context": doc.get("hint"),
        "question_type": doc.get("question_type") or doc.get("category"),
        "correct": _correct(row),
    }
    choices = next((doc[name] for name in _MULTIPLE_CHOICE if doc.get(name)), None)
    if choices is None and doc.get("A") is not None and doc.get("B") is not None:
        choices = {letter: doc[letter] for letter in "ABCDEFGHIJ" if doc.get(letter) is not None}
    out["choices"] = choices
    answers = doc.get("answers")
    out["references"] = answers if isinstance(answers, list) and answers else row.get("target")
    return out | _responses(row)


def _responses(row: Mapping[str, Any]) -> dict[str, Any]:
    """The answer, with further draws as samples; or log-likelihoods of the options."""
    found = row.get("filtered_resps", row.get("resps"))
    while isinstance(found, list) and len(found) == 1:
        found = found[0]
    if isinstance(found, str):
        return {"answer": found}
    if isinstance(found, list) and found:
        if all(isinstance(item, str) for item in found):
            return {"answer": found[0], "samples": found[1:]}
        if all(isinstance(item, list) and len(item) == 2 for item in found):
            return {"option_logprobs": [item[0] for item in found]}
    raise DataError(f"filtered_resps is {shown(found)}, neither an answer nor log-likelihoods")


def _prompt(row: Mapping[str, Any]) -> Any:
    prompt = row.get("input")
    if prompt is None:
        prompt = row.get("arguments")
    while isinstance(prompt, list | Mapping) and prompt:
        prompt = next(iter(prompt.values() if isinstance(prompt, Mapping) else prompt))
    return prompt


def _correct(row: Mapping[str, Any]) -> float | None:
    scores = {
        name: score
        for name, value in row.items()
        if name not in _NOT_METRICS and (score := _score(value)) is not None
    }
    for name in _PREFERRED:
        if name in scores:
            return scores[name]
    return next(iter(scores.values())) if len(scores) == 1 else None


def _score(value: Any) -> float | None:
    if isinstance(value, Mapping):
        value = next((value[name] for name in _SCORES if name in value), None)
    if isinstance(value, bool | int | float) and math.isfinite(value) and 0 <= value <= 1:
        return float(value)
    return None
