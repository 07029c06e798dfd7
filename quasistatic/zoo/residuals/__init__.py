"""Residuals of models with many parameters, as array functions with all derivatives that the theory needs."""
