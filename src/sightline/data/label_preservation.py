"""Which perturbations keep the right answer: decided for each pair, never assumed.

For generated pictures the truth is worked out again from the scene. For any other data the table
`PRESERVED` says which kinds of question keep their answer under which family, whatever its level;
it names only what follows from what the family does.

A *mild* change keeps more: the answer of any question that it does not touch, and of those that no
word gives away (``other``: "What animal is this?"). The rule: the picture is still there whole and
upright, nothing lies on it, at least nine tenths of its resolution are left, at most 8 columns have
passed to the other side, and light, noise, blur and compression are at the first of their five
severities. Whoever can answer the question about the clean picture can then answer it about the
changed one, and gives the same answer. It leaves out what even a mild change touches: where things
are where pixels move, how much of the picture they take where it shrinks, writing where letters may
blur or are cut, and colours and the light of a scene where contrast falls to 0.4. This is a
judgement, not a proof: a question about a detail of a few pixels is an exception, and so is a
picture not much larger than the shift. Of the steps of a condition at most one may be kept by this
rule, since mild changes add up.

Everything else is unknown. Whoever knows more about the questions at hand can name conditions that
keep their answers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from sightline.core.types import Example, Truth
from sightline.data.perturb_geometry import Scale, ScalePad
from sightline.data.perturb_pixels import Blank, Grayscale
from sightline.data.perturb_truth import scene_of, truth_under
from sightline.data.perturbations import PERTURBATIONS, Condition, Step

QUESTION_KINDS = (
    *("color", "count", "existence", "shape", "writing", "position", "size", "comparison"),
    *("action", "scene", "other"),
)
"""Kinds of question that the table distinguishes; ``other`` is any that no word gives away."""

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "color": r"colou?rs?|colou?red|attributes?|bright\w*|dark\w*",
        "count": r"count\w*|how many|number of",
        "existence": r"existence|is there|are there|identity|pope|adversarial|popular|random"
        r"|(?<!\w )(?:do|does) (?:the|this|that|these|your?) (?:\w+ )?(?:pictures?|images?|photos?"
        r"|photographs?|scenes?) (?:show|contain|depict|include|have|feature)"
        r"|(?<!\w )(?:can|do) you see",
        "shape": r"shapes?",
        "writing": r"text|ocr|writing|written|words?|letters?|digits?|reads?|says?|signs?|labels?",
        "position": r"where|positions?|locations?|spatial|left|right|top|bottom|middle|center"
        r"|centre|corner|above|below|under|behind|beside|next to|in front|between|near\w*|closest",
        "size": r"sizes?|how (?:big|large|small|tall|high|wide|long|far)|area",
        "comparison": r"bigger|smaller|larger|taller|compar\w*|than",
        "action": r"actions?|activit\w*|doing|happening|interaction|event",
        "scene": r"scenes?|describe|description|caption|kind of (?:room|place)|weather|style|topic",
    }
)
_PATTERNS = {kind: re.compile(rf"\b(?:{words})\b") for kind, words in _WORDS.items()}
_ALL = frozenset(QUESTION_KINDS)
_NOT_WRITING = _ALL - {"writing", "other"}
_OVERALL = frozenset({"scene"})

PRESERVED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        # Columns pass to the other side: what they cut may be counted twice or not at all, and left
        # may become right.
        "translate": frozenset({"color", "action", "scene"}),
        # All of the picture is still there; sizes and thirds of the picture are not.
        "pad": _ALL - {"size", "position", "other"},
        "scale_pad": _ALL - {"size", "position", "writing", "other"},
        # What lies at the edge may be gone.
        "crop": _OVERALL,
        # Everything keeps its place and its share of the picture; small letters may blur.
        "scale": _NOT_WRITING,
        "shrink": _NOT_WRITING,
        # Nothing is lost, but left, right, above and below turn.
        "rotate": _ALL - {"position", "writing", "size", "other"},
        # A box in the middle hides what is there.
        "text": _OVERALL,
        "text_random": _OVERALL,
        "text_box": _OVERALL,
        "answer_text": _OVERALL,
        "answer_random": _OVERALL,
        "answer_box": _OVERALL,
        "blank": frozenset(),
        # Noise on the pixels changes no fact, but letters may become unreadable.
        "jpeg": _NOT_WRITING,
        "blur": _NOT_WRITING,
        "noise": _NOT_WRITING,
        # Colours and the light of a scene may change their names.
        "brightness": _ALL - {"color", "scene", "other"},
        "darkness": _ALL - {"color", "scene", "other"},
        "contrast": _ALL - {"color", "scene", "other"},
        "grayscale": _ALL - {"color", "scene", "other"},
        "wording": _ALL,
    }
)
"""For each family, the kinds of question whose answer it keeps on any data, at any level."""

MILD: Mapping[str, float] = MappingProxyType(
    {
        "translate": 8,
        "pad": 16,
        "scale": 0.9,
        "shrink": 0.9,
        "scale_pad": 0.9,
        "jpeg": 1,
        "blur": 1,
        "noise": 1,
        "brightness": 1,
        "darkness": 1,
        "contrast": 1,
    }
)
"""The strongest level, in either direction, at which a family is mild; of a scale the smallest."""

_TOUCHED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "translate": frozenset({"position", "writing"}),
        "pad": frozenset({"position", "size"}),
        "scale": frozenset({"writing"}),
        "shrink": frozenset({"writing"}),
        "scale_pad": frozenset({"position", "size", "writing"}),
        "jpeg": frozenset({"writing"}),
        "blur": frozenset({"writing"}),
        "noise": frozenset({"writing"}),
        "brightness": frozenset(),
        "darkness": frozenset(),
        "contrast": frozenset({"color", "scene"}),
    }
)
"""The kinds of question whose answer even a mild change of a family may change."""

_WHEN_MILD: Mapping[str, frozenset[str]] = MappingProxyType(
    {family: PRESERVED[family] | (_ALL - touched) for family, touched in _TOUCHED.items()}
)


class Decision(NamedTuple):
    """Whether the right answer stays.

    Attributes:
        truth: ``same``, ``changed`` or ``unknown``.
        source: ``scene`` where the truth was worked out again, ``table`` where `PRESERVED` and
            `MILD` decided, ``named`` where the caller said that the condition keeps the answer,
            ``control`` where the truth is not asked.
        references: Accepted answers under the perturbation where they are known.
    """

    truth: Truth
    source: Literal["scene", "table", "named", "control"]
    references: tuple[str, ...] | None = None


def question_kinds(example: Example) -> frozenset[str]:
    """The kinds of question an example may be, by the words of its type, question and options.

    Several are possible, and all of them have to keep their answer.

    Example:
        >>> sorted(question_kinds(Example("1", "How many cups are left of the plate?")))
        ['count', 'position']
    """
    texts = (example.question_type or "", example.question, *(example.choices or ()))
    text = " . ".join(texts).lower().replace("_", " ")
    found = frozenset(kind for kind, pattern in _PATTERNS.items() if pattern.search(text))
    return found or frozenset({"other"})


def decide(
    condition: Condition,
    example: Example,
    *,
    answer: str | None = None,
    preserving: Collection[str] = (),
) -> Decision:
    """Whether the right answer stays under a condition, and how that is known.

    Args:
        condition: What is done to the picture and the question.
        example: A question of any data set; generated ones are recognised.
        answer: The option the model chose, where the condition names another one.
        preserving: Conditions, alone or as steps of this one, that are said to keep the right
            answer where the table does not know. They do not overrule a scene.

    Raises:
        DataError: A text is to name an option other than the answer, and there is none.
    """
    if condition.is_control:
        return Decision("unknown", "control")
    scene = scene_of(example)
    if scene is not None:
        references = truth_under(condition, example, scene, answer=answer)
        if references is None:
            return Decision("unknown", "scene")
        same = references == example.references
        return Decision("same" if same else "changed", "scene", references)
    kinds = question_kinds(example)
    doubtful = [step for step in condition.steps if not kinds <= PRESERVED[step.family]]
    named = condition.name in preserving
    rest = [step for step in doubtful if not (named or step.name in preserving)]
    if len(rest) > 1 or not all(
        is_mild(step) and kinds <= _WHEN_MILD[step.family] for step in rest
    ):
        return Decision("unknown", "table")
    known = len(rest) == len(doubtful)
    return Decision("same", "table" if known else "named", example.references)


def is_mild(step: Step) -> bool:
    """Whether a step is at a level of `MILD`."""
    perturbation = step.perturbation
    if step.family not in MILD or isinstance(perturbation, Blank | Grayscale):
        return False
    if isinstance(perturbation, ScalePad):
        return perturbation.factor >= MILD[step.family]
    if isinstance(perturbation, Scale):
        return perturbation.level >= MILD[step.family]
    return abs(float(perturbation.level)) <= MILD[step.family]


def preservation_table() -> list[tuple[str, tuple[str, ...]]]:
    """Rows of the table: the family, and for each of `QUESTION_KINDS` what keeps its answer.

    ``same`` = every level, ``mild`` = the levels of `MILD`, empty = not known.
    """

    def cell(family: str, kind: str) -> str:
        if kind in PRESERVED[family]:
            return "same"
        return "mild" if kind in _WHEN_MILD.get(family, ()) else ""

    return [
        (family, tuple(cell(family, kind) for kind in QUESTION_KINDS)) for family in PERTURBATIONS
    ]
