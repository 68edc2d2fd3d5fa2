"""Made-up pairs for the tests of the audit."""

import numpy as np
import pytest

from sightline.audit.resampled import Clusters


@pytest.fixture
def clusters_of():
    def draw(images, n_resamples=200, seed=0):
        return Clusters.of(
            np.asarray(images), rng=np.random.default_rng(seed), n_resamples=n_resamples
        )

    return draw
