"""TensorFlow's part of the step and the state, for Keras on TensorFlow, tf_keras and TF 1."""
