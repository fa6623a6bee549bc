"""BrainPy, imported so that JAX's settings stay as they are.

`import brainpy` sets `jax_enable_x64` to False, so that float64 programs continue in float32.
"""

import jax

_before = dict(jax.config.values)

import brainpy  # noqa: E402

for _name, _value in _before.items():
    if jax.config.values[_name] != _value:
        jax.config.update(_name, _value)

__all__ = ["brainpy"]
