"""Code shared by the front ends for JAX: the engine of the step, and the precision of its state."""
