"""Speed and accuracy of SGPU's Gaussian process, beside scikit-learn's in the same run.

Prints one JSON document. Labelled spectra are drawn: 8 latent meanings with Dirichlet mass, noise
on the unit sphere, 10 samples, the answer right with a chance that rises with the top meaning's
mass.
Processor seconds are given beside wall seconds, since other work slows the latter.

Run: OMP_NUM_THREADS=1 python benchmarks/gaussian_process.py
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from hardware import hardware
from scipy.special import erf, expit
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from sightline.estimators.gaussian_process import (
    GaussianProcess,
    average_logistic,
    condition,
    fit_gaussian_process,
)
from sightline.estimators.laplace import Points
from sightline.metrics.calibration_error import ece
from sightline.metrics.discrimination import auroc

RESTARTS = 5
TEST_ROWS = 4000


def spectra(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of the eigenvalues, von Neumann entropy, and correctness."""
    centres = rng.normal(size=(n, 8, 64))
    centres /= np.linalg.norm(centres, axis=2, keepdims=True)
    mass = rng.dirichlet(np.full(8, 0.3), n)
    meant = (rng.random((n, 10, 1)) > np.cumsum(mass, axis=1)[:, None, :]).sum(axis=2)
    vectors = centres[np.arange(n)[:, None], np.minimum(meant, 7)]
    vectors = vectors + 0.3 * rng.normal(size=vectors.shape) / 8
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    correct = rng.random(n) < expit(7 * (mass.max(axis=1) - 0.6))
    shares = np.linalg.eigvalsh(vectors @ vectors.transpose(0, 2, 1))[:, ::-1] / 10
    shares = np.maximum(shares, 1e-12)
    return shares, -(shares * np.log(shares)).sum(axis=1), correct.astype(float)


class Task:
    """Standardised rows to fit on and to test on."""

    def __init__(self, n: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        shares, entropy, self.correct = spectra(n, rng)
        new_shares, new_entropy, self.truth = spectra(TEST_ROWS, rng)
        mean, scale = shares.mean(axis=0), shares.std(axis=0)
        self.inputs, self.new = (shares - mean) / scale, (new_shares - mean) / scale
        both = [(e - entropy.mean()) / entropy.std() for e in (entropy, new_entropy)]
        self.basis, self.new_basis = (np.column_stack([np.full(len(e), 3.0), e]) for e in both)

    def points(self, *, with_mean: bool = True) -> Points:
        """The labelled rows, with the entropy in the mean function or a mean of zero."""
        basis = self.basis if with_mean else np.zeros((len(self.correct), 0))
        return Points.of(self.inputs, basis, self.correct)

    def figures(self, chance: np.ndarray) -> dict[str, float]:
        """AUROC and ECE of chances of being right."""
        return {
            "auroc": round(auroc(chance, self.truth), 4),
            "ece": round(ece(chance, self.truth), 4),
        }

    def of(self, process: GaussianProcess, *, with_mean: bool = True) -> dict[str, float]:
        """AUROC and ECE of a process."""
        basis = self.new_basis if with_mean else np.zeros((TEST_ROWS, 0))
        return self.figures(average_logistic(*process.latent(self.new, basis)))


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    taken = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    return result, {name: round(value, 2) for name, value in taken.items()}


def fit(points: Points) -> GaussianProcess:
    rng = np.random.default_rng(0)
    return fit_gaussian_process(points, kernel="rbf", ard=False, restarts=RESTARTS, rng=rng)


def thousand_rows(n: int = 1000) -> dict[str, object]:
    task = Task(n)
    document: dict[str, object] = {"rows": n, "restarts": RESTARTS, "target_wall_s": 20}
    for name, with_mean in (("ours", True), ("ours_zero_mean", False)):
        points = task.points(with_mean=with_mean)
        process, taken = timed(lambda points=points: fit(points))
        figures, predicting = timed(lambda p=process, m=with_mean: task.of(p, with_mean=m))
        document[name] = {**taken, **figures, "predict_4000_cpu_s": predicting["cpu_s"]}
    peer = GaussianProcessClassifier(
        ConstantKernel(1.0) * RBF(np.sqrt(10.0)),
        n_restarts_optimizer=RESTARTS - 1,
        random_state=0,
        copy_X_train=False,
    )
    _, taken = timed(lambda: peer.fit(task.inputs, task.correct))
    figures = task.figures(peer.predict_proba(task.new)[:, 1])
    document["scikit_learn_zero_mean"] = {**taken, **figures}
    return document


def many_rows(n: int = 20_000) -> dict[str, object]:
    task = Task(n)
    process, taken = timed(lambda: fit(task.points()))
    return {
        "rows": n,
        "points": len(process.points),
        "target_wall_s": 120,
        **taken,
        **task.of(process),
    }


def points_against_exact(n: int = 2000) -> dict[str, object]:
    task = Task(n)
    points = task.points()
    fitted = fit(points)
    document: dict[str, object] = {"rows": n}
    exact: np.ndarray | None = None
    for most in (n, 500, 200, 50):
        process, taken = timed(
            lambda most=most: condition(points, fitted.hyper, 0.0, most_points=most)
        )
        chance = average_logistic(*process.latent(task.new, task.new_basis))
        exact = chance if exact is None else exact
        document[f"points_{most}"] = {
            "cpu_s": taken["cpu_s"],
            **task.figures(chance),
            "largest_difference_from_exact": float(np.abs(chance - exact).max()),
        }
    return document


def averaging() -> dict[str, float]:
    """Largest error of ways to average the logistic, over means to ±8 and deviations to 6."""
    mean, deviation = np.meshgrid(np.linspace(-8, 8, 161), np.linspace(0.05, 6, 120))
    mean, deviation = mean.ravel(), deviation.ravel()
    grid = np.linspace(-12, 12, 4801)
    density = np.exp(-0.5 * grid**2)
    exact = np.concatenate(
        [
            expit(m[:, None] + s[:, None] * grid) @ density / density.sum()
            for m, s in zip(np.split(mean, 40), np.split(deviation, 40), strict=True)
        ]
    )
    nodes, weights = np.polynomial.hermite.hermgauss(32)
    hermite = expit(mean[:, None] + np.sqrt(2) * deviation[:, None] * nodes) @ weights
    lambdas = np.array([0.41, 0.4, 0.37, 0.44, 0.39])[:, None]
    coefficients = np.array(
        [-1854.8214151, 3516.89893646, 221.29346712, 128.12323805, -2010.49422654]
    )
    alpha = 1 / (2 * deviation**2)
    gamma = lambdas * mean
    integrals = (
        np.sqrt(np.pi / alpha)
        * erf(gamma * np.sqrt(alpha / (alpha + lambdas**2)))
        / (2 * deviation * np.sqrt(2 * np.pi))
    )
    five = coefficients @ integrals + 0.5 * coefficients.sum()
    guesses = {
        "mackay": expit(mean / np.sqrt(1 + np.pi * deviation**2 / 8)),
        "five_error_functions_of_scikit_learn": five,
        "gauss_hermite_32": hermite / np.sqrt(np.pi),
        "ours_trapezoid_205": average_logistic(mean, deviation**2),
    }
    return {name: float(f"{np.abs(guess - exact).max():.1e}") for name, guess in guesses.items()}


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    document = {
        "benchmark": "gaussian_process",
        "hardware": hardware("numpy", "scipy", "scikit-learn"),
        "averaging_largest_error": averaging(),
        "thousand_rows": thousand_rows(),
        "many_rows": many_rows(),
        "points_against_exact": points_against_exact(),
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
