"""The parts of `adadelta.tf1`."""
