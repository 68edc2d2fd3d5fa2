"""Forward passes and time of judging entailment between the samples of 100 questions.

Prints one JSON document. Two ways judge the same pairs with the same model in one run, a random
BERT of 3 M parameters, and give the same clusters, which is checked:

- ``derive``: `sightline derive`, 32 questions a shard: greedy answer and samples, equal pairs once,
  sorted by length, up to 256 pairs a pass. Reading and writing the run is part of its time.
- ``per_question``: as lm-polygraph 0.7.0 asks: per question the distinct samples in all ordered
  pairs, each with itself included, ten pairs to a pass. On its own run of this size it made 774.

Gates: at most a tenth of 774 passes, and of the passes counted here; equal clusters.

Run: OMP_NUM_THREADS=1 python benchmarks/derive.py
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers as tf
from hardware import hardware
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.models import load_entailment_model, load_text_encoder
from sightline.models.encoders import EntailmentModel
from sightline.store.run import Manifest, RunStore
from sightline.workflow.derive import derive_embeddings, derive_entailment

QUESTIONS, SAMPLES, PEER_BATCH, PEER_PASSES = 100, 10, 10, 774
CANDIDATES = 34  # answers a question's samples are drawn from: 8.8 distinct ones in 10, as theirs
WORDS = [f"word{i}" for i in range(200)]


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(Path(folder)), indent=1))


def measured(folder: Path) -> dict[str, object]:
    """Builds model and run, asks both ways, and compares."""
    save_model(folder / "nli")
    store = make_run(folder / "run")
    model, peer = (load_entailment_model(str(folder / "nli")) for _ in range(2))
    model.probabilities([("word1", "word2")])  # one unmeasured pass
    peer.probabilities([("word1", "word2")])
    started, cpu = time.perf_counter(), time.process_time()
    result = derive_entailment(store, model)
    own = {"wall_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}
    started, cpu = time.perf_counter(), time.process_time()
    tables = [per_question(record, peer) for record in store.records(features=())]
    other = {"wall_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}
    judged = [
        np.stack([r.array(Feature.ENTAILMENT), r.array(Feature.CONTRADICTION)], -1)[1:, 1:]
        for r in store.records(features={Feature.ENTAILMENT, Feature.CONTRADICTION})
    ]
    texts = [[s.text for s in r.samples] for r in store.records(features=())]
    equal = [
        clusters(said, one) == clusters(said, two)
        for said, one, two in zip(texts, judged, tables, strict=True)
    ]
    encoder = load_text_encoder(str(folder / "nli"))
    vectors = derive_embeddings(store, encoder)
    peer_passes = peer.passes - 1
    return {
        "benchmark": "derive",
        "questions": QUESTIONS,
        "samples": SAMPLES,
        "distinct_samples_per_question": round(float(np.mean([len(set(t)) for t in texts])), 2),
        "entailment_passes": {
            "derive": result.passes,
            "per_question": peer_passes,
            "lm_polygraph_0.7.0": PEER_PASSES,
        },
        "entailment_time": {"derive": rounded(own), "per_question": rounded(other)},
        "largest_difference": float(
            max(
                np.abs(one - two)[different(said)].max(initial=0)
                for said, one, two in zip(texts, judged, tables, strict=True)
            )
        ),
        "embedding_passes": vectors.passes,
        "equal_clusters": sum(equal),
        "clusters_per_question": round(
            float(np.mean([1 + max(clusters(t, j)) for t, j in zip(texts, judged, strict=True)])), 2
        ),
        "passed": all(equal)
        and result.passes <= 0.1 * PEER_PASSES
        and result.passes <= 0.1 * peer_passes,
        "hardware": hardware("torch", "transformers", "numpy"),
    }


def per_question(record: Record, model: EntailmentModel) -> np.ndarray:
    """p(entails) and p(contradicts) of the samples, (m, m, 2), asked question by question."""
    texts = [sample.text for sample in record.samples]
    distinct = list(dict.fromkeys(texts))
    pairs = [(one, two) for one in distinct for two in distinct]
    judged = {}
    for at in range(0, len(pairs), PEER_BATCH):
        batch = pairs[at : at + PEER_BATCH]
        judged.update(zip(batch, model.probabilities(batch), strict=True))
    return np.stack([[judged[one, two] for two in texts] for one in texts])[..., [0, 2]]


def clusters(texts: list[str], judged: np.ndarray) -> list[int]:
    """Clusters by entailment both ways with their first member; equal texts together."""
    neutral = 1 - judged.sum(-1)
    entails = (judged[..., 0] > judged[..., 1]) & (judged[..., 0] > neutral)
    heads: list[int] = []
    found = []
    for i, text in enumerate(texts):
        same = [
            number
            for number, head in enumerate(heads)
            if texts[head] == text or (entails[head, i] and entails[i, head])
        ]
        if not same:
            heads.append(i)
        found.append(same[0] if same else len(heads) - 1)
    return found


def different(texts: list[str]) -> np.ndarray:
    """Which pairs of samples have different texts."""
    return np.array([[one != two for two in texts] for one in texts])


def make_run(path: Path) -> RunStore:
    """Answers of 1 to 12 words; the samples of a question come from its own candidates."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(QUESTIONS):
        said = [" ".join(rng.choice(WORDS, rng.integers(1, 13))) for _ in range(CANDIDATES)]
        samples = tuple(Generation(said[k]) for k in rng.integers(0, CANDIDATES, SAMPLES))
        example = Example(id=str(i), question="?")
        records.append(Record(example, greedy=Generation(said[0]), samples=samples))
    manifest = Manifest(
        run_id="derive",
        created="2026-01-01T00:00:00+00:00",
        kind="imported",
        model={"name": "none"},
        dataset={"name": "random"},
        settings={},
        versions={},
        shard_size=32,
    )
    store = RunStore.create(path, manifest, [record.example for record in records])
    with store.writer() as writer:
        for index in range(store.manifest.n_shards or 0):
            writer.commit(index, records[index * 32 : (index + 1) * 32])
    return store


def save_model(path: Path) -> None:
    """A random classifier whose judgements are spread over all three labels."""
    torch.manual_seed(0)
    labels = {0: "contradiction", 1: "neutral", 2: "entailment"}
    config = tf.BertConfig(
        vocab_size=len(WORDS) + 4,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=128,
        initializer_range=0.2,
        id2label=labels,
        label2id={label: i for i, label in labels.items()},
    )
    tf.BertForSequenceClassification(config).save_pretrained(path)
    vocab = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tf.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        model_max_length=128,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(path)


def rounded(times: dict[str, float]) -> dict[str, float]:
    """Seconds with three decimals."""
    return {name: round(seconds, 3) for name, seconds in times.items()}


if __name__ == "__main__":
    main()
