"""Training one scorer of laid-out answers. Imports torch: import this module where it is used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch.nn import functional

from sightline.estimators.learning import log_loss
from sightline.estimators.token_sequence import TokenSequence
from sightline.estimators.token_start import soft_auroc
from sightline.estimators.token_transformer import Batch, Scorer, batch

SKEW = 4.0
"""Classes are weighted alike where one is more than so many times as frequent as the other."""


SURE = 2.0
"""Standard errors by which the network must lower the loss of its start to take part."""

MOST = 3.0
"""Few rows are passed over at most so many times as often as many."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a scorer is trained.

    Attributes:
        epochs: Passes over the rows, at most.
        patience: Epochs without a better validation AUROC after which training stops.
        batch: Answers a step.
        rate: Largest learning rate.
        body_rate: That of a pretrained body and its table; None where nothing is pretrained.
        decay: Weight decay.
        steps: Few rows are passed over more often, up to `MOST` times as often, to take so many.
        warm_up: Share of all steps in which the rate rises; then it falls to 0 in a straight line.
    """

    epochs: int
    patience: int
    batch: int
    rate: float
    body_rate: float | None
    decay: float
    steps: int = 400
    warm_up: float = 0.1

    def for_rows(self, count: int) -> tuple[int, int, int]:
        """Steps an epoch, epochs and patience for so many training rows."""
        per_epoch = -(-count // self.batch)
        more = min(MOST, max(1.0, self.steps / (per_epoch * self.epochs)))
        return per_epoch, round(more * self.epochs), round(more * self.patience)


COMPACT = Schedule(epochs=12, patience=6, batch=32, rate=2e-3, body_rate=None, decay=0.1)
PRETRAINED = Schedule(epochs=5, patience=2, batch=8, rate=1e-4, body_rate=1e-5, decay=0.01)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """How well a scorer does on the rows held out.

    Attributes:
        auroc: On the rows held out; NaN where one class is missing there.
        losses: Log-loss of each row held out.
    """

    auroc: float
    losses: Float[np.ndarray, " v"]

    def better_than(self, other: Judged) -> bool:
        """Higher validation AUROC; lower loss where one has none or they are equal."""
        if np.isnan(self.auroc) or np.isnan(other.auroc) or self.auroc == other.auroc:
            return bool(self.losses.mean() < other.losses.mean())
        return self.auroc > other.auroc

    def surely_better_than(self, other: Judged) -> bool:
        """Loss lower by more than `SURE` standard errors of the paired difference."""
        gain = other.losses - self.losses
        if len(gain) < 2:
            return False
        return bool(gain.mean() > SURE * gain.std(ddof=1) / np.sqrt(len(gain)))


def train(
    make: Callable[[], Scorer],
    answers: Sequence[TokenSequence],
    correct: Float[np.ndarray, " n"],
    held_out: Bool[np.ndarray, " n"],
    schedule: Schedule,
    seed: int,
    device: torch.device,
) -> Scorer:
    """Trains a scorer on the rows that are not held out and keeps its best epoch on those that are.

    A scorer with a linear start keeps it alone where the best epoch is not surely better: the best
    of several epochs on few hundred rows is often so by chance.

    The same seed gives the same scorer on the same machine; torch's own random state is put back.

    Args:
        make: Builds the scorer; draws from torch's random state.
        answers: Laid-out answers.
        correct: In [0, 1].
        held_out: Rows of the inner validation.
        schedule: How to train.
        seed: Sets weights, dropout and the order of the rows.
        device: Where to train.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        scorer = make().to(device)
        return _train(scorer, answers, correct, held_out, schedule, seed, device)


def _train(
    scorer: Scorer,
    answers: Sequence[TokenSequence],
    correct: Float[np.ndarray, " n"],
    held_out: Bool[np.ndarray, " n"],
    schedule: Schedule,
    seed: int,
    device: torch.device,
) -> Scorer:
    training, validation = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    weight = right_weight(correct[training])
    if scorer.start is not None:  # nothing is added to the start as yet
        with torch.no_grad():
            scorer.head.weight.zero_()
            scorer.head.bias.fill_(float(np.log(weight)))
    optimiser = torch.optim.AdamW(_parameters(scorer, schedule), weight_decay=schedule.decay)
    per_epoch, epochs, patience = schedule.for_rows(len(training))
    steps = epochs * per_epoch
    rising = max(1, round(schedule.warm_up * steps))
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min((s + 1) / rising, (steps - s) / max(1, steps - rising))
    )
    order = np.random.default_rng(seed)
    begun = _judge(scorer, answers, correct, validation, weight, device)
    untrained = copy.deepcopy(scorer.state_dict())
    best, kept, waited = begun, untrained, 0
    for _ in range(epochs):
        scorer.train()
        for rows in _batches(answers, order.permutation(training), schedule.batch):
            target = torch.tensor(correct[rows], dtype=torch.float32, device=device)
            out = scorer(_side_by_side(scorer, answers, rows, device))
            loss = functional.binary_cross_entropy_with_logits(
                out, target, pos_weight=torch.tensor(weight, device=device)
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(scorer.parameters(), 1.0)
            optimiser.step()
            rates.step()
        now = _judge(scorer, answers, correct, validation, weight, device)
        if now.better_than(best):
            best, waited, kept = now, 0, copy.deepcopy(scorer.state_dict())
        else:
            waited += 1
            if waited == patience:
                break
    needless = scorer.start is not None and not best.surely_better_than(begun)
    scorer.load_state_dict(untrained if needless else kept)
    with torch.no_grad():
        scorer.head.bias.sub_(float(np.log(weight)))
    return scorer.cpu().eval()


def right_weight(correct: Float[np.ndarray, " n"]) -> float:
    """Weight of right answers in the loss: 1, or wrong to right where the skew exceeds 4:1.

    The logarithm of this weight is taken off the trained log-odds, so that they stay those of the
    rows as they came.
    """
    right, wrong = float(correct.sum()), float(len(correct) - correct.sum())
    skewed = max(right, wrong) > SKEW * min(right, wrong)
    return wrong / right if skewed and min(right, wrong) > 0 else 1.0


def _judge(
    scorer: Scorer,
    answers: Sequence[TokenSequence],
    correct: Float[np.ndarray, " n"],
    validation: np.ndarray,
    weight: float,
    device: torch.device,
) -> Judged:
    scorer.eval()
    score = np.empty(len(answers))
    with torch.no_grad():
        for rows in _batches(answers, validation, 256):
            score[rows] = scorer(_side_by_side(scorer, answers, rows, device)).cpu().numpy()
    log_odds = score[validation] - np.log(weight)
    truth = correct[validation]
    return Judged(soft_auroc(log_odds, truth), log_loss(log_odds, truth))


def _side_by_side(
    scorer: Scorer, answers: Sequence[TokenSequence], rows: np.ndarray, device: torch.device
) -> Batch:
    return batch([answers[i] for i in rows], scorer.table.num_embeddings, device)


def _batches(answers: Sequence[TokenSequence], rows: np.ndarray, size: int) -> list[np.ndarray]:
    """The rows in their order, in batches."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _parameters(scorer: Scorer, schedule: Schedule) -> list[dict[str, object]]:
    """Parameters with their rates: a pretrained body is moved less."""
    if schedule.body_rate is None:
        return [{"params": list(scorer.parameters()), "lr": schedule.rate}]
    body = [*scorer.body.parameters(), *scorer.table.parameters()]
    known = {id(p) for p in body}
    rest = [p for p in scorer.parameters() if id(p) not in known]
    return [
        {"params": list({id(p): p for p in body}.values()), "lr": schedule.body_rate},
        {"params": rest, "lr": schedule.rate},
    ]
