"""Published figures, simulated and compared with the theory."""
