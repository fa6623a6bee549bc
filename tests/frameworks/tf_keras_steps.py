"""Drive an optimizer of tf_keras call by call: eagerly, in a tf.function, or compiled by XLA."""

import numpy as np
import tensorflow as tf
import tf_keras

import adadelta.tf_keras

MODES = ("eager", "function", "xla")


class NonNegative(tf_keras.constraints.Constraint):
    def __call__(self, w):
        return tf.where(w < 0, tf.zeros_like(w), w)


def variables_of(case, dtype):
    """Return the variables of a case of the shared vectors, with their initial values."""
    constraints = {None: None, "non_negative": NonNegative()}
    return [
        tf.Variable(
            it["initial"], dtype=dtype, name=it["name"], constraint=constraints[it["constraint"]]
        )
        for it in case["variables"]
    ]


def optimizer_of(case, cls=adadelta.tf_keras.Adadelta):
    """Return the optimizer that a case of the shared vectors describes."""
    arguments = dict(case["arguments"])
    rate = arguments["learning_rate"]
    if isinstance(rate, dict):
        arguments["learning_rate"] = tf_keras.optimizers.schedules.ExponentialDecay(
            rate["initial_learning_rate"], rate["decay_steps"], rate["decay_rate"]
        )
    if case.get("weight_decay_mode") == "coupled":
        arguments["decoupled_weight_decay"] = False
    return cls(**arguments)


class Steps:
    """Call an optimizer on its variables; `mode` is one of MODES."""

    def __init__(self, optimizer, variables, mode="eager"):
        self.optimizer, self.variables, self.mode = optimizer, list(variables), mode
        self.compiled = {}
        optimizer.build(self.variables)

    def call(self, gradients):
        gradients = [
            tf.constant(gradient, variable.dtype) if isinstance(gradient, np.ndarray) else gradient
            for gradient, variable in zip(gradients, self.variables, strict=True)
        ]
        if self.mode == "eager":
            self.optimizer.apply_gradients(zip(gradients, self.variables, strict=True))
            return
        present = tuple(gradient is not None for gradient in gradients)
        if present not in self.compiled:

            def step(given):
                given = iter(given)
                gradients = [next(given) if has else None for has in present]
                self.optimizer.apply_gradients(zip(gradients, self.variables, strict=True))

            self.compiled[present] = tf.function(step, jit_compile=self.mode == "xla")
        self.compiled[present]([gradient for gradient in gradients if gradient is not None])

    def state(self, slot):
        """Return the values of one slot, named as in the shared vectors, one for each variable."""
        return [variable.numpy() for variable in self.state_variables(slot)]

    def state_variables(self, slot):
        return {
            "variables": self.variables,
            "square_avg": self.optimizer._accumulated_grads,
            "acc_delta": self.optimizer._accumulated_delta_vars,
            "average": getattr(self.optimizer, "_model_variables_moving_average", None),
        }[slot]


def displacement(optimizer, mode, dtype, gradients, constraint=None):
    """Return how far all variables move from fixed starting values, joined to one array."""
    generator = np.random.default_rng(1)
    variables = [
        tf.Variable(generator.normal(size=shape), dtype=dtype, name=name, constraint=constraint)
        for name, shape in {"first": (7,), "second": (3, 4), "bias": (1,)}.items()
    ]
    start = [variable.numpy() for variable in variables]
    run = Steps(optimizer, variables, mode)
    for gradient in gradients:
        run.call(gradient)
    moved = [v.numpy() - s for v, s in zip(variables, start, strict=True)]
    return np.concatenate([value.ravel() for value in moved])
