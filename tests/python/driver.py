"""Drive a Keras optimizer call by call: eagerly, or as compiled training does."""

import keras
import numpy as np

import adadelta

BACKEND = keras.config.backend()
MODES = {
    "jax": ("eager", "jit"),
    "tensorflow": ("eager", "function", "xla"),
    "torch": ("eager",),
}[BACKEND]


def is_slow(mode):
    """Whether a call takes 10 ms or more, so that only the compiled modes do long runs."""
    return mode == "eager" and BACKEND != "torch"


def tensor(value, dtype=None):
    if value is None:
        return None
    return keras.ops.convert_to_tensor(np.asarray(value, dtype or keras.config.floatx()))


def numpy(value):
    return np.asarray(keras.ops.convert_to_numpy(value))


def sparse(ids, values, shape):
    """Return rows of a tensor as the backend's sparse tensor; repeated ids are summed."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.IndexedSlices(values, ids, tf.constant(shape))
    if BACKEND == "jax":
        from jax.experimental.sparse import BCOO

        return BCOO((values, ids[:, None]), shape=shape)
    import torch

    return torch.sparse_coo_tensor(ids[None], values, shape)


class Driver:
    """Call an optimizer on its variables; `mode` is one of MODES."""

    def __init__(self, optimizer, variables, mode="eager"):
        self.optimizer, self.variables, self.mode = optimizer, list(variables), mode
        self.compiled = {}
        if mode != "eager":
            optimizer.build(self.variables)

    def call(self, gradients):
        gradients = [
            tensor(g, v.dtype if "float" in str(v.dtype) else None)
            if isinstance(g, np.ndarray | list)
            else g
            for g, v in zip(gradients, self.variables, strict=True)
        ]
        if self.mode == "eager":
            self.optimizer.apply(gradients, self.variables)
        elif self.mode == "jit":
            self._jit(gradients)
        else:
            self._function(gradients)

    def _jit(self, gradients):
        import jax

        if not self.compiled:
            self.compiled["step"] = jax.jit(
                lambda state, gradients, values: self.optimizer.stateless_apply(
                    state, gradients, values
                ),
                donate_argnums=(0, 2),
            )
        state = [variable.value for variable in self.optimizer.variables]
        values = [variable.value for variable in self.variables]
        values, state = self.compiled["step"](state, gradients, values)
        for variable, value in zip(
            [*self.variables, *self.optimizer.variables], [*values, *state], strict=True
        ):
            variable.assign(value)

    def _function(self, gradients):
        import tensorflow as tf

        present = tuple(gradient is not None for gradient in gradients)
        if present not in self.compiled:

            def step(given):
                given = iter(given)
                self.optimizer.apply(
                    [next(given) if has else None for has in present], self.variables
                )

            self.compiled[present] = tf.function(step, jit_compile=self.mode == "xla")
        self.compiled[present]([gradient for gradient in gradients if gradient is not None])

    def state(self, slot):
        """Return the values of one slot of the shared vectors, one for each variable."""
        assert self.optimizer.variables  # lets rows without a gradient catch up
        variables = {
            "variables": self.variables,
            "square_avg": self.optimizer._accumulated_grads,
            "acc_delta": self.optimizer._accumulated_delta_vars,
            "average": getattr(self.optimizer, "_model_variables_moving_average", None),
            "window": getattr(self.optimizer, "_accumulated_gradients", None),
        }[slot]
        return [numpy(variable) for variable in variables]


def adadelta_of(case, cls=adadelta.Adadelta, **more):
    """Return the optimizer that a case of the shared vectors describes."""
    arguments = dict(case["arguments"], **more)
    rate = arguments["learning_rate"]
    if isinstance(rate, dict):
        arguments["learning_rate"] = keras.optimizers.schedules.ExponentialDecay(
            rate["initial_learning_rate"], rate["decay_steps"], rate["decay_rate"]
        )
    if case.get("weight_decay_mode") == "coupled":
        arguments["decoupled_weight_decay"] = False
    return cls(**arguments)


class NonNegative(keras.constraints.Constraint):
    """Like keras.constraints.NonNeg, which returns float32 for float64 on torch."""

    def __call__(self, w):
        w = keras.ops.convert_to_tensor(w)
        return keras.ops.where(w < 0, keras.ops.zeros_like(w), w)


def variables_of(case, dtype=None):
    """Return the Keras variables of a case at their initial values."""
    constraints = {None: None, "non_negative": NonNegative()}
    variables = []
    for described in case["variables"]:
        variable = keras.Variable(
            described["initial"], dtype=dtype or keras.config.floatx(), name=described["name"]
        )
        variable.constraint = constraints[described["constraint"]]
        variables.append(variable)
    return variables
