"""What qs.manifold_flow returns: the numeric flow, and its validation."""

from __future__ import annotations

from typing import Any

from quasistatic.manifold_validation import validate_manifold
from quasistatic.numeric.manifold import flow
from quasistatic.validate import Report


class ManifoldFlow(flow.ManifoldFlow):
    __doc__ = flow.ManifoldFlow.__doc__

    def validate(self, start: Any, steps: int, trajectories: int = 16, seed: int = 0, **options: Any) -> Report:
        """Simulate the rule and compare; arguments as for :func:`quasistatic.manifold_validation.validate_manifold`."""
        return validate_manifold(self, start, steps, trajectories, seed, **options)
