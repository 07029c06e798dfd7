"""The mathematics, one step a file, in the order it happens."""
