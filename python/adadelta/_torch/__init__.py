"""The parts of the torch front end: arguments, the step, state, loading."""
