"""Kernels: faster ways to run the step than one operator after another over whole tensors."""
