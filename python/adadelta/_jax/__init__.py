"""What the front ends on plain JAX share: the step of one parameter, and its precision."""
