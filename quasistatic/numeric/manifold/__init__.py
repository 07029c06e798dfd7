"""Slow dynamics on a manifold that has no formula: every term of the reduction at a point, in numbers."""
