"""The audit's numbers beside transcriptions of the published formulas, written another way."""

import math

import numpy as np
import pytest

from sightline.audit.drift import cosine_drift, l2_drift, linear_cka


def cka_transcribed(x, y):
    """Kornblith et al. 2019, equations 3 and 4, with centring matrices and traces."""
    n = len(x)
    h = np.eye(n) - np.ones((n, n)) / n

    def hsic(k, m):
        return np.trace(k @ h @ m @ h) / (n - 1) ** 2

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


def debiased_cka_transcribed(x, y):
    """Song et al. 2012, equation 5, by loops over pairs of rows."""
    n = len(x)

    def kernel(z):
        return [[0.0 if i == j else float(z[i] @ z[j]) for j in range(n)] for i in range(n)]

    def hsic(k, m):
        trace = sum(k[i][j] * m[j][i] for i in range(n) for j in range(n))
        sums_k, sums_m = [sum(row) for row in k], [sum(row) for row in m]
        total = sum(sums_k) * sum(sums_m) / ((n - 1) * (n - 2))
        cross = sum(a * b for a, b in zip(sums_k, sums_m, strict=True)) * 2 / (n - 2)
        return (trace + total - cross) / (n * (n - 3))

    k, m = kernel(x), kernel(y)
    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


@pytest.mark.parametrize("shape", [(30, 5, 7), (8, 40, 20), (25, 25, 3), (12, 6, 30)])
def test_cka_equals_its_transcription(shape):
    rng = np.random.default_rng(sum(shape))
    n, d, e = shape
    x = rng.normal(size=(n, d)) * rng.gamma(1.0, size=d) + rng.normal(size=d)
    y = np.tanh(x @ rng.normal(size=(d, e))) + rng.normal(size=(n, e)) + 3
    assert linear_cka(x, y) == pytest.approx(cka_transcribed(x, y), abs=1e-10)
    debiased = linear_cka(x, y, debiased=True)
    assert debiased == pytest.approx(debiased_cka_transcribed(x, y), abs=1e-10)


def test_drift_equals_its_transcription():
    rng = np.random.default_rng(0)
    clean, moved = rng.normal(size=(2, 12, 9))
    for row in range(12):
        a, b = clean[row].tolist(), moved[row].tolist()
        dot = sum(u * v for u, v in zip(a, b, strict=True))
        lengths = math.sqrt(sum(u * u for u in a)) * math.sqrt(sum(v * v for v in b))
        distance = math.sqrt(sum((u - v) ** 2 for u, v in zip(a, b, strict=True)))
        assert cosine_drift(clean, moved)[row] == pytest.approx(1 - dot / lengths, abs=1e-14)
        assert l2_drift(clean, moved)[row] == pytest.approx(distance, abs=1e-14)
