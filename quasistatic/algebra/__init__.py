"""Exact algebra: fraction fields with fresh symbols, Gramians of filters, linear matrix equations with proven residuals."""
