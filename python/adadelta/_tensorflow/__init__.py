"""The step and the state on TensorFlow, for Keras on TensorFlow, tf_keras and TensorFlow 1."""
