"""The laws that every entry of the table of estimators keeps."""

import dataclasses
import json
import math
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.condition_names import asked_condition
from sightline.core.errors import DataError, MissingFeatureError, UsageError
from sightline.core.features import (
    ARRAY_AXES,
    AUDITED,
    FIXED_REPLIES,
    FOLLOW_UPS,
    LAYERED,
    READ_WITH,
    Feature,
)
from sightline.core.protocols import Cost, Estimator, LearnedEstimator
from sightline.core.types import Example, Generation, Record, Related
from sightline.estimators import ESTIMATORS, from_spec, parse_estimator, spec_of
from sightline.estimators.states import layers_read

NAMES = tuple(ESTIMATORS)
FAMILIES = {
    "likelihood",
    "choice",
    "agreement",
    "semantic",
    "contrast",
    "stability",
    "verbal",
    "probe",
    "density",
    "fusion",
    "recorded",
    "control",
}


def generation(text, logprobs, **more):
    ids = np.arange(len(logprobs))
    cuts = np.linspace(0, len(text), len(ids) + 1).astype(int).tolist()
    tokens = tuple(text[a:b] for a, b in pairwise(cuts))
    return Generation(text, token_ids=ids, tokens=tokens, logprobs=np.array(logprobs), **more)


REPLIES = {
    Feature.CONFIDENCE_NUMBER: "85%",
    Feature.CONFIDENCE_REASONED: "The cat is small, but sharp.\nConfidence: 60%",
    Feature.ANSWER_CONFIDENCE: "Answer: B\nConfidence: 70%",
    Feature.ANSWER_CONFIDENCE_REASONED: "It has whiskers.\nAnswer: A\nConfidence: 95%",
    Feature.TOP_GUESSES: "A, B, C",
    Feature.GUESS_PROBABILITIES: "A: 55%\nB: 30%\nC: 10%",
}


def follow_ups(example, rng):
    """A reply to every follow-up question, two wordings each."""
    found = []
    for question in sorted(FOLLOW_UPS):
        replies = FIXED_REPLIES.get(question)
        for name in (question.value, f"{question.value}.2"):
            logprobs = {} if replies is None else {Feature.REPLY_LOGPROBS: scores(rng, replies)}
            reply = REPLIES[question] if replies is None else replies[-1]
            condition = asked_condition(name)
            found.append(Record(example, condition, generation(reply, [-0.4]), features=logprobs))
    return tuple(found)


def scores(rng, replies):
    return np.log(rng.dirichlet(np.ones(len(replies) + 1))[:-1])


READ_BY_NONE = frozenset(
    f for f in ARRAY_AXES if not any(f in e.needs for e in ESTIMATORS.values())
) - {*READ_WITH.values()}


def unread(sizes):
    """Arrays that no estimator reads, of the right axes."""
    rng = np.random.default_rng(0)
    return {
        feature: rng.normal(size=tuple(sizes.get(axis, 3) for axis in ARRAY_AXES[feature]))
        for feature in sorted(READ_BY_NONE)
    }


def noised(example, logprobs):
    """What was seen under noise: other words, and how likely the clean ones are."""
    read = {Feature.CLEAN_LOGPROBS: np.array(logprobs) * 1.3 - 0.05}
    return Record(example, "noise:5", generation("B", [-0.5]), (), features=read, truth="unknown")


def full_record(
    name,
    *,
    text="B",
    logprobs=(-0.2, -0.01),
    samples=(("B", (-0.2, -0.01)), ("A", (-1.5, -0.1)), ("B", (-0.2, -0.01))),
    choices=("a red dog", "a cat", "no idea"),
    letters=(-2.0, -0.3, -4.0),
    others=("B", "the answer is A", "C"),
    answer_start=0,
    rng_seed=0,
    question_type="colour",
):
    """A record that shows every signal of the enum."""
    rng = np.random.default_rng(rng_seed)
    t, c = len(logprobs), len(choices)
    example = Example(
        name, "Which is it?", choices=choices, references=("A",), question_type=question_type
    )
    rotated = replace(example, id=name + "-r", choices=choices[1:] + choices[:1])

    def other(condition, answer, of=example):
        return Record(of, condition, generation(answer, [-0.5]), (generation(answer, [-0.7]),))

    answers = [text, *(s for s, _ in samples)]
    alike = np.array([[one == two for two in answers] for one in answers])
    embeddings = np.array([np.random.default_rng(len(a)).normal(size=4) for a in answers])
    top = np.sort(-rng.exponential(2.0, size=(t, 4)), axis=1)[:, ::-1]
    return Record(
        example,
        greedy=generation(text, logprobs, answer_start=answer_start),
        samples=tuple(generation(s, lp) for s, lp in samples),
        features={
            Feature.TOKEN_ENTROPY: rng.exponential(1.0, size=t).astype(np.float32),
            Feature.TOP_LOGPROBS: top,
            Feature.TOP_TOKEN_IDS: np.arange(4 * t).reshape(t, 4),
            Feature.HIDDEN: rng.normal(size=(2, t, 3)).astype(np.float32),
            Feature.PROMPT_HIDDEN: rng.normal(size=(2, 3)).astype(np.float32),
            Feature.IMAGE_HIDDEN: rng.normal(size=(2, 3)).astype(np.float32),
            Feature.SAMPLE_HIDDEN: rng.normal(size=(2, len(samples), 3)).astype(np.float32),
            Feature.EMBEDDINGS: embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
            Feature.ENTAILMENT: np.where(alike, 1.0, rng.uniform(size=alike.shape)),
            Feature.CONTRADICTION: np.where(alike, 0.0, 0.5 * rng.uniform(size=alike.shape)),
            Feature.TOKEN_IMPORTANCE: rng.uniform(size=t),
            Feature.OPTION_LOGPROBS: np.array(letters) * 7.0,
            Feature.OPTION_LENGTHS: rng.integers(1, 6, size=c),
            Feature.LETTER_LOGPROBS: np.array(letters),
            Feature.BLANK_LOGPROBS: np.array(logprobs) * 1.5 - 0.1,
            Feature.BLANK_OPTION_LOGPROBS: -rng.exponential(9.0, size=c),
            Feature.BLANK_LETTER_LOGPROBS: -rng.exponential(2.0, size=c),
            Feature.CLEAN_LOGPROBS: np.array(logprobs) * 1.2 - 0.1,
            Feature.REPLY_LOGPROBS: -rng.exponential(2.0, size=2),
            Feature.RECORDED_CONFIDENCE: np.array(rng.uniform()),
            **{feature: np.array(rng.uniform()) for feature in sorted(AUDITED)},
            **unread({"t": t, "c": c, "m": len(samples), "a": 1 + len(samples), "l": 2}),
        },
        layers=(1, 2),
        related=Related(
            conditions=(
                *(other(f"blur:{i}", answer) for i, answer in enumerate(others)),
                noised(example, logprobs),
                other("blank", others[0]),
                other("negated+wording:1", others[-1]),
            ),
            rotations=tuple(other("clean", answer, rotated) for answer in others),
            models=tuple(other("clean", answer) for answer in others),
            follow_ups=follow_ups(example, rng),
        ),
    )


def limits():
    """The documented limits, each as a record with every signal."""
    long = " ".join(f"word{i % 700}" for i in range(2000))
    other_long = " ".join(f"word{i % 690}" for i in range(2000))
    many = tuple(f"option {i}" for i in range(40))
    return {
        "ordinary": full_record("ordinary"),
        "one sample": full_record("one", samples=(("A", (-0.4,)),)),
        "identical samples": full_record("same", samples=(("B", (-0.3, -0.1)),) * 5),
        "empty answers": full_record(
            "empty",
            text="",
            logprobs=(-0.9,),
            samples=(("", (-0.9,)), ("  ", (-2.0,)), ("?", (-3.0,))),
            others=("", "", ""),
        ),
        "2,000 tokens": full_record(
            "long",
            text=long,
            logprobs=np.linspace(-9, 0, 2000),
            samples=((long, np.full(2000, -1.0)), (other_long, np.full(2000, -1.1))),
            others=(long, other_long, long),
        ),
        "single token": full_record("single", logprobs=(-0.05,)),
        "certain": full_record("certain", logprobs=(0.0, 0.0), letters=(0.0, -900.0, -900.0)),
        "impossible": full_record("impossible", logprobs=(-1e5, -1e5), letters=(-1e5, -1e5, -1e5)),
        "cut off while reasoning": full_record("cut", logprobs=(-0.5, -0.6), answer_start=2),
        "names no option": full_record("none", text="I cannot say.", others=("?", "both", "")),
        "forty options": full_record(
            "forty", text="AN", choices=many, letters=np.linspace(-9, -1, 40)
        ),
        "equal options": full_record("equal", choices=("x", "x", "x"), letters=(-1.0, -1.0, -1.0)),
        "other scripts": full_record(
            "scripts",
            text="红色的狗",
            samples=(("红色的狗", (-0.1,)), ("красная собака", (-0.2,)), ("🐕", (-0.3,))),
            others=("<b>B</b>\x1b[2J", "\u202eB", "B" * 50),
        ),
        "another type": full_record("type", question_type="count", rng_seed=4),
    }


LIMITS = limits()
RECORDS = tuple(LIMITS.values())
SEVERAL = (*RECORDS, *(full_record(f"more{i}", rng_seed=i) for i in range(1, 7)))
SHORT = [i for i, name in enumerate(LIMITS) if name != "2,000 tokens"]
CORRECT = np.array([0, 1, 1, 0.5] * 5)


@pytest.fixture(scope="module", autouse=True)
def short_training():
    """Networks are passed over the rows a few times only: no law here asks what they learn."""
    from sightline.estimators import harmony_training, probes

    with pytest.MonkeyPatch.context() as patch:
        brief = replace(harmony_training.COMPACT, epochs=3, steps=0)
        patch.setattr(harmony_training, "COMPACT", brief)
        patch.setattr(probes, "EPOCHS", 5)
        yield


@cache
def fitted(name):
    """The entry, fitted on 20 labels where it learns."""
    estimator = ESTIMATORS[name]
    if isinstance(estimator, LearnedEstimator):
        assert len(SEVERAL) == 20
        return estimator.fit(SEVERAL, CORRECT, rng=np.random.default_rng(0))
    return estimator


@cache
def scored(name):
    """What the entry gives several records, computed once for all laws.

    Returns:
        All records together; each by itself; all but the longest in another order; that order; and
        whether the records were left alone.
    """
    before = snapshot(SEVERAL)
    estimator = fitted(name)
    together = estimator.uncertainty(SEVERAL)
    alone = [estimator.uncertainty([record]) for record in SEVERAL]
    order = np.random.default_rng(1).permutation([*SHORT, *range(len(RECORDS), len(SEVERAL))])
    shuffled = estimator.uncertainty([SEVERAL[i] for i in order])
    return together, alone, shuffled, order, snapshot(SEVERAL) == before


def without(record, feature):
    """The record as if the signal had not been observed."""
    if feature in ARRAY_AXES:
        return replace(record, features={f: a for f, a in record.features.items() if f != feature})

    def axes_free(*axes):
        return {f: a for f, a in record.features.items() if not {*axes} & {*ARRAY_AXES[f]}}

    related = record.related
    noise_free = tuple(c for c in related.conditions if c not in related.noised)
    blank_free = tuple(c for c in related.conditions if c not in related.blank)
    changes = {
        Feature.ANSWER: {"greedy": None, "features": axes_free("t", "a")},
        Feature.LOGPROBS: {"greedy": record.greedy and replace(record.greedy, logprobs=None)},
        Feature.SAMPLES: {"samples": (), "features": axes_free("m", "a")},
        Feature.SAMPLE_LOGPROBS: {"samples": tuple(Generation(s.text) for s in record.samples)},
        Feature.CHOICES: {
            "example": replace(record.example, choices=None),
            "features": axes_free("c"),
        },
        Feature.QUESTION_TYPE: {"example": replace(record.example, question_type=None)},
        Feature.CONDITIONS: {"related": replace(related, conditions=related.blank)},
        Feature.BLANK_ANSWER: {"related": replace(related, conditions=blank_free)},
        Feature.NOISED_LOGPROBS: {"related": replace(related, conditions=noise_free)},
        Feature.NEGATIONS: {"related": replace(related, conditions=related.views)},
        Feature.ROTATIONS: {"related": replace(related, rotations=())},
        Feature.MODELS: {"related": replace(related, models=())},
    }
    if feature in FOLLOW_UPS:
        asked = related.asked(feature)
        others = tuple(f for f in related.follow_ups if all(f is not a for a in asked))
        changes[feature] = {"related": replace(related, follow_ups=others)}
    return replace(record, **changes[feature])


def snapshot(records):
    arrays = [(f, a.dtype.str, a.tobytes()) for r in records for f, a in sorted(r.features.items())]
    answers = [
        None if g.logprobs is None else g.logprobs.tobytes()
        for r in records
        for g in (r.answer, *r.samples)
    ]
    return arrays, answers, repr(records)


def test_every_signal_is_shown_by_the_records_of_these_tests():
    for record in SEVERAL:
        assert record.missing(frozenset(Feature)) == ()


@pytest.mark.parametrize("name", NAMES)
def test_is_a_frozen_dataclass_with_its_traits_stated(name):
    estimator = ESTIMATORS[name]
    assert dataclasses.is_dataclass(estimator)
    assert type(estimator).__dataclass_params__.frozen
    assert isinstance(estimator, Estimator) != isinstance(estimator, LearnedEstimator)
    assert isinstance(fitted(name), Estimator)
    assert estimator.family in FAMILIES
    assert estimator.control == (estimator.family == "control")
    assert not (estimator.control and estimator.simple)
    assert estimator.needs <= frozenset(Feature)
    assert type(estimator).__doc__.partition("\n")[0].endswith(".")
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        estimator.anything = 1


@pytest.mark.parametrize("name", NAMES)
def test_is_finite_at_every_limit(name):
    for limit, values in zip(LIMITS, scored(name)[1], strict=False):
        assert values.shape == (1,), limit
        assert values.dtype == np.float64, limit
        assert np.isfinite(values).all(), limit
        if ESTIMATORS[name].is_probability:
            assert 0.0 <= values[0] <= 1.0, limit


@pytest.mark.parametrize("name", NAMES)
def test_needs_no_record(name):
    values = fitted(name).uncertainty([])
    assert values.shape == (0,)
    assert values.dtype == np.float64


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_independent_and_order_is_kept_to_the_bit(name):
    together, alone, shuffled, order, _ = scored(name)
    np.testing.assert_array_equal(together, np.concatenate(alone))
    np.testing.assert_array_equal(shuffled, together[order])


@pytest.mark.parametrize("name", NAMES)
def test_is_deterministic_and_leaves_its_input_alone(name):
    together, *_, left_alone = scored(name)
    assert left_alone
    estimator = fitted(name)
    short = [RECORDS[i] for i in SHORT]
    first = estimator.uncertainty(short)
    np.testing.assert_array_equal(first, together[SHORT])
    first[:] = 7.0
    np.testing.assert_array_equal(estimator.uncertainty(short), together[SHORT])


@pytest.mark.parametrize(
    ("name", "feature"),
    [(name, feature) for name in NAMES for feature in Feature if feature in ESTIMATORS[name].needs],
)
def test_names_the_signal_that_is_missing(name, feature):
    assert not lacking(feature).has(feature)
    with pytest.raises(MissingFeatureError, match=rf"'lacking'.*\b{feature.value}\b"):
        fitted(name).uncertainty([RECORDS[0], lacking(feature)])


FULL = full_record("bare")


@cache
def lacking(feature):
    return without(full_record("lacking"), feature)


@cache
def bare_of(needs):
    """A record with the needed signals, and with no other that can be left out."""
    bare = FULL
    asked = {Feature.CHOICES, Feature.QUESTION_TYPE}  # of the question, not observed
    for feature in set(Feature) - asked:
        if bare.has(feature) and feature not in needs:
            stripped = without(bare, feature)
            if not stripped.missing(needs):
                bare = stripped
    return bare


@pytest.mark.parametrize("name", NAMES)
def test_reads_nothing_that_it_does_not_need(name):
    estimator = fitted(name)
    record, bare = FULL, bare_of(frozenset(estimator.needs))
    if name != "answer_length":  # counts tokens where they were observed
        np.testing.assert_array_equal(
            estimator.uncertainty([bare]), estimator.uncertainty([record])
        )
    assert np.isfinite(estimator.uncertainty([bare])).all()


def of_layers(record, kept):
    """The record as if these layers alone had been kept."""
    at = [record.layers.index(layer) for layer in kept]
    arrays = {f: array[at] if f in LAYERED else array for f, array in record.features.items()}
    return replace(record, features=arrays, layers=tuple(kept))


@pytest.mark.parametrize("name", NAMES)
def test_reads_no_layer_but_those_it_states(name):
    estimator = fitted(name)
    layers = layers_read([estimator])
    if layers is None or not estimator.needs & LAYERED:
        assert name == "eigenscore" or not estimator.needs & LAYERED
        return
    assert layers
    np.testing.assert_array_equal(
        estimator.uncertainty([of_layers(record, layers) for record in RECORDS]),
        estimator.uncertainty(RECORDS),
    )


@pytest.mark.parametrize("name", NAMES)
def test_spec_goes_through_json_and_back(name):
    estimator = ESTIMATORS[name]
    spec = json.loads(json.dumps(spec_of(estimator), allow_nan=False))
    assert spec["name"] == name
    assert from_spec(spec) == estimator
    assert parse_estimator(name) == estimator
    text = name + "".join(
        f":{k}={json.dumps(v).strip(chr(34))}" for k, v in spec.items() if k != "name"
    )
    assert parse_estimator(text) == estimator


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_setting_is_refused(name):
    with pytest.raises(UsageError, match="has no setting 'no_such_setting'"):
        parse_estimator(name + ":no_such_setting=1")


@pytest.mark.parametrize("name", NAMES)
def test_cost_counts_what_was_observed(name):
    estimator = ESTIMATORS[name]
    cost = estimator.cost(SEVERAL)
    assert isinstance(cost, Cost)
    assert cost.forward_passes >= 0
    assert cost.generations >= 0
    needs = estimator.needs
    assert estimator.cost([]).generations <= 1
    if Feature.SAMPLES in needs:
        assert cost.generations == math.ceil(np.mean([len(r.samples) for r in SEVERAL]))
    related = {Feature.CONDITIONS, Feature.NEGATIONS, Feature.ROTATIONS, Feature.MODELS, *AUDITED}
    blank = {f for f in needs if f.value.startswith(("blank", "noised"))}
    assert (cost.forward_passes > 0) == bool(needs & related or needs & FOLLOW_UPS or blank)


def test_entries_differ_and_every_kind_is_there():
    specs = [json.dumps(spec_of(e), sort_keys=True) for e in ESTIMATORS.values()]
    assert len(set(specs)) == len(specs)
    assert {e.family for e in ESTIMATORS.values()} == FAMILIES
    assert {n for n, e in ESTIMATORS.items() if e.control} == {
        "question_type",
        "answer_length",
        "random",
    }
    assert "sequence_probability" in {n for n, e in ESTIMATORS.items() if e.simple}


def test_simple_baselines_cost_nothing():
    for estimator in ESTIMATORS.values():
        if estimator.simple:
            assert estimator.cost(SEVERAL) == Cost()


LEARNED = tuple(n for n in NAMES if isinstance(ESTIMATORS[n], LearnedEstimator))


@pytest.mark.parametrize("name", LEARNED)
def test_fitting_keeps_no_state_and_does_not_depend_on_the_order(name):
    estimator = ESTIMATORS[name]
    first = fitted(name)
    order = np.random.default_rng(1).permutation(len(SEVERAL))
    again = estimator.fit([SEVERAL[i] for i in order], CORRECT[order], rng=np.random.default_rng(0))
    np.testing.assert_allclose(
        scored(name)[0][SHORT],
        again.uncertainty([RECORDS[i] for i in SHORT]),
        rtol=0,
        atol=1e-12,
    )
    assert estimator == parse_estimator(name)
    assert first.needs == estimator.needs
    assert (first.family, first.control, first.is_probability) == (
        estimator.family,
        estimator.control,
        estimator.is_probability,
    )


@pytest.mark.parametrize("name", LEARNED)
def test_twenty_labels_are_enough_and_say_something_of_new_answers(name):
    values = fitted(name).uncertainty([full_record(f"new{i}", rng_seed=40 + i) for i in range(3)])
    assert np.isfinite(values).all()
    if fitted(name).is_probability:
        assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("all_are", [0.0, 1.0])
def test_a_class_missing_in_training_is_one_clear_line(name, all_are):
    correct = np.full(len(SEVERAL), all_are)
    if name == "question_type":  # a rate is defined: that of the only class
        rates = ESTIMATORS[name].fit(SEVERAL, correct, rng=np.random.default_rng(0))
        assert set(rates.uncertainty(SEVERAL)) == {1.0 - all_are}
        return
    with pytest.raises(DataError, match=r"20 labelled answers .* right and wrong ones") as caught:
        ESTIMATORS[name].fit(SEVERAL, correct, rng=np.random.default_rng(0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_record_holds_what_is_not_finite_whatever_an_estimator_reads(bad):
    needed = frozenset[Feature]().union(*(estimator.needs for estimator in ESTIMATORS.values()))
    read = needed | {READ_WITH[feature] for feature in needed & READ_WITH.keys()}
    record = full_record("bad")
    for feature in sorted(read & ARRAY_AXES.keys()):
        arrays = {**record.features, feature: np.full(record.features[feature].shape, bad)}
        with pytest.raises(DataError, match=rf"{feature.value} .*'bad'.* must be finite"):
            replace(record, features=arrays)
    with pytest.raises(DataError, match="log-probabilities must be finite"):
        generation("B", [-0.1, bad])


logprob = st.floats(-60, 0, allow_nan=False)
text = st.one_of(
    st.sampled_from(["A", "B", "b)", "a cat", "a red dog", "two", "2", ""]), st.text(max_size=30)
)
token_lists = st.lists(logprob, min_size=1, max_size=6)


@st.composite
def any_record(draw):
    t = draw(token_lists)
    c = draw(st.integers(2, 5))
    return full_record(
        draw(st.text(min_size=1, max_size=5)),
        text=draw(text),
        logprobs=t,
        samples=draw(st.lists(st.tuples(text, token_lists), min_size=1, max_size=5)),
        choices=tuple(draw(st.lists(text, min_size=c, max_size=c))),
        letters=draw(st.lists(logprob, min_size=c, max_size=c)),
        others=tuple(draw(st.lists(text, min_size=3, max_size=3))),
        answer_start=draw(st.integers(0, len(t))),
        rng_seed=draw(st.integers(0, 2**20)),
    )


# The run-time type checks draw which list entry they look at from `random`.
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
@settings(max_examples=12, deadline=None)
@given(st.lists(any_record(), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_the_laws_hold_on_any_records(records, random):
    order = list(range(len(records)))
    random.shuffle(order)
    for name in NAMES:
        estimator = fitted(name)
        values = estimator.uncertainty(records)
        assert values.shape == (len(records),), name
        assert np.isfinite(values).all(), name
        if estimator.is_probability:
            assert ((values >= 0) & (values <= 1)).all(), name
        shuffled = estimator.uncertainty([records[i] for i in order])
        np.testing.assert_array_equal(shuffled, values[order], err_msg=name)
        alone = [estimator.uncertainty([record])[0] for record in records]
        np.testing.assert_array_equal(alone, values, err_msg=name)
