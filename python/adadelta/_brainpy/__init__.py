"""The parts of `adadelta.brainpy`: the host, the learning rate, and the state."""
