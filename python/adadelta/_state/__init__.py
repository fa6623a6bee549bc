"""Optimizer state as NumPy arrays by name: the record, its file, and matching it to parameters."""
