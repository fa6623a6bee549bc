"""The parts of the Keras front end: what differs between backends, state, saving."""
