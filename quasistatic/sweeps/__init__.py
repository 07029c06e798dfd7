"""Simulation and theory over a grid of hyperparameters, here or on a cluster."""
