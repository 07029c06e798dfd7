"""What the user declares: update rules, losses with their minima, and gradient noise."""
