"""The parts of `adadelta.tf_keras`."""
