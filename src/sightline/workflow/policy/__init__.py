"""A trust policy: from an answer's signals to a probability, and to accepting or abstaining."""

from sightline.workflow.policy.decision import Decision
from sightline.workflow.policy.saved import load_policy, save_policy
from sightline.workflow.policy.trust import Stage, TrustPolicy

__all__ = ["Decision", "Stage", "TrustPolicy", "load_policy", "save_policy"]
