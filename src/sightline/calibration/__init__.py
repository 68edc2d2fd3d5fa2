"""Maps from uncertainty to the probability of being right."""

from sightline.calibration.calibrators import CALIBRATORS
from sightline.calibration.fitted import load_calibration

__all__ = ["CALIBRATORS", "load_calibration"]
