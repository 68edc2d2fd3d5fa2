"""HARMONY and LARS: what they learn, what they leave out, and that they are read back alike."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sightline.core.errors import DataError, UnscorableError, UsageError
from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.estimators import ESTIMATORS, spec_of
from sightline.estimators.harmony import Harmony
from sightline.estimators.learning import wrong_probability
from sightline.estimators.saved import Saved, load_fitted, save_fitted
from sightline.estimators.token_codes import BINS, few_hot
from sightline.estimators.token_start import StartInputs, soft_auroc

torch = pytest.importorskip("torch", reason="the models extra is not installed")

WIDTH = 6


def answers(count, rng, signal="hidden"):
    """Answers whose correctness one signal shows and no other."""
    correct = rng.integers(0, 2, count).astype(float)
    made = []
    for i, right in enumerate(correct):
        t = int(rng.integers(1, 4))
        hidden = rng.normal(size=(2, t, WIDTH))
        logprobs = -rng.exponential(size=t)
        word = str(rng.choice(["red", "two"]))
        if signal == "hidden":
            hidden[1, :, 0] += 4 * right - 2
        elif signal == "prob":
            logprobs = np.full(t, -0.05 if right else -2.0) - rng.exponential(0.02, size=t)
        elif signal == "text":
            word = "red" if right else "two"
        elif signal == "text and hidden":  # neither shows it alone
            hidden[1, :, 0] += 4 * (right == (word == "red")) - 2
        image = np.zeros((2, WIDTH)) + (right if signal == "image" else 0.0)
        tokens = (*[word] * (t - 1), "<end>") if t > 1 else (word,)
        made.append(
            Record(
                Example(f"{i:04}", "Which is it?", group=str(i // 2)),
                greedy=Generation(word, tokens=tokens, logprobs=logprobs),
                features={
                    Feature.HIDDEN: hidden.astype(np.float16),
                    Feature.IMAGE_HIDDEN: image,
                },
                layers=(3, 7),
            )
        )
    return made, correct


def fit(records, correct, seed=0, **settings):
    harmony = Harmony(**{"device": "cpu", **settings})
    return harmony.fit(records, correct, rng=np.random.default_rng(seed))


def accuracy(fitted, records, correct):
    return float(((fitted.uncertainty(records) < 0.5) == (correct > 0.5)).mean())


@pytest.fixture
def passes(monkeypatch):
    """Sets how often the rows are passed over, where fewer times than by default will do."""
    from sightline.estimators import harmony_training

    def set_to(epochs):
        for name in ("COMPACT", "PRETRAINED"):
            schedule = getattr(harmony_training, name)
            monkeypatch.setattr(harmony_training, name, replace(schedule, epochs=epochs, steps=0))

    return set_to


@pytest.fixture
def brief(passes):
    """Trains for two passes only, where it does not matter what is learned."""
    passes(2)


@pytest.mark.parametrize(
    ("signal", "settings"),
    [
        ("hidden", {}),
        ("hidden", {"inputs": "hidden", "mapping": "additive"}),
        ("hidden", {"inputs": "prob+hidden", "mapping": "pooled_mlp"}),
        ("prob", {"inputs": "text+prob"}),
        ("prob", {"inputs": "prob"}),
        ("text", {"inputs": "text"}),
        ("image", {"inputs": "text", "image": True}),
    ],
)
def test_the_network_learns_from_every_signal_without_its_start(signal, settings, passes):
    passes(12)
    rng = np.random.default_rng(0)
    fitted = fit(*answers(240, rng, signal), layer="7", residual=False, **settings)
    assert accuracy(fitted, *answers(100, rng, signal)) > 0.9


@pytest.mark.parametrize("mapping", ["interleaved", "additive", "pooled_mlp"])
def test_every_mapping_learns_what_two_signals_show_only_together(mapping, passes):
    if mapping == "interleaved":  # the others take more passes
        passes(12)
    rng = np.random.default_rng(0)
    records, correct = answers(400, rng, "text and hidden")
    new = answers(200, rng, "text and hidden")
    fitted = fit(records, correct, layer="7", mapping=mapping)
    assert accuracy(fitted, *new) > 0.9
    start = only_start(fitted)
    assert accuracy(start, *new) < 0.65


@pytest.mark.parametrize("signal", ["hidden", "prob", "text", "image"])
def test_the_start_alone_learns_what_one_signal_shows(signal, brief):
    rng = np.random.default_rng(0)
    fitted = fit(*answers(240, rng, signal), layer="7", image=signal == "image")
    assert accuracy(only_start(fitted), *answers(100, rng, signal)) > 0.9


def only_start(fitted):
    """The fitted scorer with nothing added to its start."""
    settings, arrays = fitted.state()
    arrays = {n: np.zeros_like(a) if ".head." in n else a for n, a in arrays.items()}
    return type(fitted).from_state(json.loads(json.dumps(settings)), arrays)


def laid_out(fitted, records):
    from sightline.estimators.harmony_network import text_code
    from sightline.estimators.token_sequence import sequences

    return sequences(records, fitted.reading, text_code(fitted.blueprint), fitted.edges)


def test_the_start_is_the_regression_on_all_rows(brief):
    records, correct = answers(100, np.random.default_rng(0), "prob")
    correct[::5] = 1 - correct[::5]
    fitted = fit(records, correct, layer="7")
    inputs = StartInputs.of(laid_out(fitted, records), 4096)
    everything = np.ones(100, dtype=bool)
    found = only_start(fitted).uncertainty(records)

    def difference(strength):
        weights, bias = inputs.fit(everything, correct, strength)
        expected = wrong_probability(inputs.log_odds(weights, bias, everything))
        return np.abs(found - expected).max()

    from sightline.estimators.token_start import STRENGTHS

    assert min(difference(strength) for strength in STRENGTHS) < 1e-4


def test_where_the_network_does_no_better_on_validation_rows_the_start_stays(passes):
    passes(12)
    rng = np.random.default_rng(0)
    records, correct = answers(120, rng, "prob")
    fitted = fit(records, correct, inputs="text+prob")  # the start alone ranks all of them right
    new, truth = answers(200, rng, "prob")
    uncertainty = fitted.uncertainty(new)
    assert soft_auroc(1 - uncertainty, truth) == 1.0


def test_a_start_alone_scores_what_its_whole_network_does(brief, monkeypatch):
    """Leaving out a network that adds nothing changes no number."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr("sightline.estimators.harmony_training.SURE", np.inf)
    fitted = fit(*answers(120, rng, "prob"), layer="7")
    (scorer,) = fitted.scorers
    assert scorer.is_start_alone()
    laid = laid_out(fitted, answers(30, rng, "prob")[0])
    from sightline.estimators.harmony_network import log_odds
    from sightline.estimators.token_transformer import batch

    whole = [scorer(batch([one], 4096, torch.device("cpu"))).item() for one in laid]
    assert log_odds((scorer,), laid, torch.device("cpu"))[:, 0].tolist() == whole
    asked = ["Which is it?", "Is it red or two?", "Which?", "Which is it?"]
    wordy = [
        replace(record, example=replace(record.example, question=question))
        for question, record in zip(asked, answers(4, rng, "prob")[0], strict=True)
    ]
    alone = [fitted.uncertainty([record]) for record in wordy]
    np.testing.assert_array_equal(fitted.uncertainty(wordy), np.concatenate(alone))
    with torch.no_grad():
        scorer.head.weight[0, 0] = 1.0
    changed = scorer(batch(laid[:1], 4096, torch.device("cpu"))).item()
    assert changed != whole[0]
    assert log_odds((scorer,), laid[:1], torch.device("cpu")).item() == changed


def test_does_not_learn_from_what_takes_no_part(brief):
    rng = np.random.default_rng(0)
    records, correct = answers(240, rng, "hidden")
    new = answers(200, rng, "hidden")
    assert accuracy(fit(records, correct, inputs="text+prob"), *new) < 0.65
    assert accuracy(fit(records, correct, inputs="text+hidden", layer="7"), *new) > 0.9


def test_chooses_the_layer_that_shows_it(brief):
    records, correct = answers(240, np.random.default_rng(0))
    assert fit(records, correct).reading.layer == 7


def test_codes_stay_frozen(brief):
    records, correct = answers(120, np.random.default_rng(0), "prob")
    for mapping in ("interleaved", "additive"):
        scorer = fit(records, correct, inputs="text+prob", mapping=mapping).scorers[0]
        assert "codes" not in dict(scorer.named_parameters())
        size = float(scorer.codes.max()) / BINS
        np.testing.assert_allclose(scorer.codes, few_hot(scorer.codes.shape[1], size), rtol=1e-6)
        assert float(scorer.table.weight.detach().abs().mean()) == pytest.approx(size, rel=0.2)


@pytest.mark.parametrize("mapping", ["interleaved", "additive", "pooled_mlp"])
def test_with_probability_and_state_zeroed_it_equals_the_scorer_of_text(mapping, brief):
    from sightline.estimators.token_sequence import PROBABILITY, STATE
    from sightline.estimators.token_transformer import batch

    rng = np.random.default_rng(0)
    records, correct = answers(80, rng)
    fitted = fit(records, correct, mapping=mapping, layer="7", residual=False)
    scorer = fitted.scorers[0]
    with torch.no_grad():
        scorer.codes.zero_()
        scorer.states.after.weight.zero_()
        scorer.states.after.bias.zero_()
        scorer.kind.weight[[PROBABILITY, STATE]] = 0.0
    only_text = replace(fitted, reading=replace(fitted.reading, probability=False, hidden=False))
    if mapping == "interleaved":  # a zeroed slot is not attended to
        zeroed = []
        for answer in laid_out(fitted, records):
            inputs = batch([answer], scorer.table.num_embeddings, torch.device("cpu"))
            seen = inputs.mask & (inputs.kind != PROBABILITY) & (inputs.kind != STATE)
            with torch.inference_mode():
                zeroed.append(float(scorer(replace(inputs, mask=seen)).sigmoid()))
        found = 1 - np.array(zeroed)
    else:
        found = fitted.uncertainty(records)
    expected = replace(only_text, blueprint=replace(fitted.blueprint, state_width=None))
    expected.scorers[0].states = None
    np.testing.assert_allclose(found, expected.uncertainty(records), atol=1e-6)


@pytest.mark.parametrize("seeds", [1, 3])
def test_is_saved_without_pickle_and_scores_alike_to_the_bit(seeds, tmp_path, brief):
    records, correct = answers(60, np.random.default_rng(0))
    fitted = fit(records, correct, seeds=seeds, image=True, layer="3")
    assert len(fitted.scorers) == seeds
    save_fitted(tmp_path / "one", Saved(fitted, spec_of(ESTIMATORS["harmony"]), {}))
    again = load_fitted(tmp_path / "one").estimator
    np.testing.assert_array_equal(fitted.uncertainty(records), again.uncertainty(records))
    assert again.needs == fitted.needs


def test_several_seeds_are_averaged(brief):
    records, correct = answers(60, np.random.default_rng(0))
    fitted = fit(records, correct, seeds=2, layer="3", residual=False)
    alone = [replace(fitted, scorers=(s,)).uncertainty(records) for s in fitted.scorers]
    assert np.abs(alone[0] - alone[1]).max() > 0
    np.testing.assert_allclose(fitted.uncertainty(records), np.mean(alone, axis=0), atol=1e-12)


def test_arrays_of_another_shape_are_refused(brief):
    fitted = fit(*answers(60, np.random.default_rng(0)), layer="3")
    settings, arrays = fitted.state()
    settings = json.loads(json.dumps(settings))
    settings["blueprint"]["state_width"] = WIDTH + 1
    with pytest.raises(ValueError, match="size mismatch"):
        type(fitted).from_state(settings, arrays)


def test_one_class_only_is_said():
    records, _ = answers(20, np.random.default_rng(0))
    with pytest.raises(DataError, match="right and wrong ones are required"):
        fit(records, np.ones(20))


def test_the_order_of_the_rows_does_not_matter_and_global_random_state_is_left_alone(brief):
    records, correct = answers(60, np.random.default_rng(0))
    before = torch.random.get_rng_state()
    first = fit(records, correct, layer="7")
    order = np.random.default_rng(1).permutation(60)
    second = fit([records[i] for i in order], correct[order], layer="7")
    np.testing.assert_array_equal(first.uncertainty(records), second.uncertainty(records))
    assert torch.equal(before, torch.random.get_rng_state())


def test_twenty_soft_labels_are_enough(brief):
    records, _ = answers(20, np.random.default_rng(0))
    correct = np.linspace(0, 1, 20)
    values = fit(records, correct).uncertainty(records)
    assert ((values >= 0) & (values <= 1)).all()


def test_states_that_never_vary_or_are_huge_give_finite_scores(brief):
    records, correct = answers(40, np.random.default_rng(0))
    huge = [
        replace(
            r, features={**r.features, Feature.HIDDEN: np.full((2, len(r.answer.tokens), 6), 3e38)}
        )
        for r in records
    ]
    assert np.isfinite(fit(huge, correct).uncertainty(records)).all()
    assert np.isfinite(fit(records, correct).uncertainty(huge)).all()


def test_skewed_classes_are_weighted_and_the_probability_keeps_the_base_rate(passes):
    from sightline.estimators.harmony_training import right_weight

    assert right_weight(np.array([1.0] * 4 + [0.0])) == 1.0
    assert right_weight(np.array([1.0] * 9 + [0.0])) == pytest.approx(1 / 9)
    assert right_weight(np.array([1.0] + [0.0] * 9)) == pytest.approx(9.0)
    rng = np.random.default_rng(0)
    records, _ = answers(200, rng, "none")
    correct = (rng.uniform(size=200) < 0.9).astype(float)
    for residual in (True, False):
        passes(2 if residual else 12)
        fitted = fit(records, correct, inputs="text+prob", residual=residual)
        wrong = fitted.uncertainty(records).mean()
        assert wrong == pytest.approx(1 - correct.mean(), abs=0.05)


def test_auroc_of_shares():
    score = np.array([0.1, 0.4, 0.4, 0.8])
    assert soft_auroc(score, np.array([0.0, 0.0, 1.0, 1.0])) == 3.5 / 4
    assert np.isnan(soft_auroc(score, np.ones(4)))
    # two answers half right: of both orders of the pair one is won, one lost
    assert soft_auroc(score[[0, 3]], np.array([0.5, 0.5])) == 0.5


@pytest.mark.parametrize(
    "settings",
    [
        {"inputs": ""},
        {"inputs": "text+text"},
        {"inputs": "text+attention"},
        {"layer": "last"},
        {"seeds": 0},
    ],
)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(UsageError):
        Harmony(**settings)


def test_a_layer_or_a_width_that_it_was_not_fitted_on_is_said(brief):
    records, correct = answers(40, np.random.default_rng(0))
    fitted = fit(records, correct, layer="7")
    with pytest.raises(UnscorableError, match="no hidden state of layer 7") as absent:
        fitted.uncertainty([records[0], replace(records[1], layers=(3, 8))])
    assert absent.value.rows == (1,)
    wide = {**records[1].features, Feature.HIDDEN: np.zeros((2, 1, WIDTH + 2))}
    short = Generation("a", logprobs=np.array([-0.1]))
    with pytest.raises(UnscorableError, match="8 wide; 6 are required"):
        fitted.uncertainty([records[0], replace(records[1], greedy=short, features=wide)])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_said():
    records, correct = answers(20, np.random.default_rng(0))
    with pytest.raises(UsageError, match="no GPU was found"):
        fit(records, correct, device="cuda")


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """A tiny random RoBERTa with its tokenizer, saved as transformers saves them."""
    transformers = pytest.importorskip("transformers", reason="the models extra is not installed")
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("roberta")
    names = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "<mask>",
        "which",
        "is",
        "it",
        "?",
        "r",
        "##ed",
        "two",
    ]
    raw = Tokenizer(models.WordPiece({n: i for i, n in enumerate(names)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
    config = transformers.RobertaConfig(
        vocab_size=len(names),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=514,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.RobertaModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_subtoken_has_its_own_position_and_shares_the_tokens_slots(roberta):
    from sightline.estimators.harmony_network import blueprint, load_encoder, text_code
    from sightline.estimators.token_sequence import ANSWER, PROBABILITY, Reading, sequences

    reading = Reading(
        text=True, probability=True, hidden=False, image=False, additive=False, layer=None
    )
    encoder = load_encoder(str(roberta))
    plan = blueprint(pooled=False, start=2, state_width=None, image_width=None, encoder=encoder)
    one = Record(
        Example("a", "?"), greedy=Generation("red", tokens=("red",), logprobs=np.array([-0.1]))
    )
    found = sequences([one], reading, text_code(plan), np.array([-1.0]))[0]
    assert found.text[found.kind == ANSWER][:, 0].tolist() == [9 + 1, 10 + 1]
    assert found.probability[found.kind == PROBABILITY].tolist() == [2]


def test_a_pretrained_encoder_is_fed_and_needed_no_more_once_fitted(roberta, brief):
    records, correct = answers(60, np.random.default_rng(0))
    fitted = fit(records, correct, encoder=str(roberta), layer="7")
    settings, arrays = fitted.state()
    assert str(roberta) not in json.dumps(settings)
    again = type(fitted).from_state(json.loads(json.dumps(settings)), arrays)
    values = fitted.uncertainty(records)
    np.testing.assert_array_equal(values, again.uncertainty(records))
    assert np.ptp(values) > 0


def test_an_encoder_that_is_not_there_is_said(tmp_path):
    records, correct = answers(20, np.random.default_rng(0))
    with pytest.raises(DataError, match="cannot be loaded"):
        fit(records, correct, encoder=str(tmp_path))
