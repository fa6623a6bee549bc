"""The parts of `adadelta.optax`: its arguments and its state."""
