"""An interrupted step is completed or not done at all."""

import signal
import threading

import keras
import numpy as np
import pytest
from conftest import floats
from interrupting import after, at_every_line, interruptible  # noqa: F401

import adadelta
from adadelta._core import interrupts
from driver import BACKEND, numpy

OPTIONS = {
    "plain": {},
    "without a kernel": {"fused": False},
    "everything": {
        "skip_nonfinite": True,
        "use_ema": True,
        "global_clipnorm": 100.0,
        "weight_decay": 1e-9,
    },
    "accumulation": {"gradient_accumulation_steps": 2},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_all_variables_and_counters_are_of_the_same_step(options):
    with floats("float64"):
        variables = [keras.Variable([1.0], dtype=it) for it in ("float32", "float64", "float32")]
        optimizer = adadelta.Adadelta(1.0, rho=0.0, epsilon=1.0, **options)
        gradients = [keras.ops.ones(1, dtype=it.dtype) for it in variables]
        optimizer.apply(gradients, variables)

        def check():
            # A name scope that stayed open would rename all variables created later.
            assert keras.Variable(0.0, name="later").path == "later"
            updates = int(optimizer.iterations)
            every = optimizer.gradient_accumulation_steps
            assert updates == int(optimizer._iterations) // (every or 1)
            weight, _ = after(updates)
            for variable in variables:
                np.testing.assert_allclose(numpy(variable), weight, atol=0.1)
            if every:
                windows = [numpy(it)[0] for it in optimizer._accumulated_gradients]
                np.testing.assert_allclose(windows, int(numpy(optimizer._state.window)))

        stride = {"torch": 5, "jax": 41, "tensorflow": 41}[BACKEND]
        assert at_every_line(lambda: optimizer.apply(gradients, variables), check, stride) > 3


def test_an_optimizer_is_built_as_a_whole_or_not_at_all():
    variables = [keras.Variable([1.0], name=f"weight{it}") for it in range(2)]
    optimizer = adadelta.Adadelta(0.5, use_ema=True)

    def build():
        optimizer.build(variables)
        optimizer.learning_rate = 0.25

    def check():
        nonlocal optimizer
        assert keras.Variable(0.0, name="later").path == "later"
        assert len(optimizer.variables) == (8 if optimizer.built else 2)
        optimizer = adadelta.Adadelta(0.5, use_ema=True)

    assert at_every_line(build, check, 11) > 3


def test_an_interrupt_waits_for_the_end_and_for_all_handlers():
    called = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: called.append(number))
    try:
        with pytest.raises(KeyboardInterrupt), interrupts.Deferred(), interrupts.Deferred():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                signal.raise_signal(number)
            assert not called
    finally:
        signal.signal(signal.SIGTERM, before)
    assert called == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_of_the_step_is_seen_beside_the_interrupt():
    with pytest.raises(KeyboardInterrupt) as caught, interrupts.Deferred():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("of the step")
    assert isinstance(caught.value.__context__, ValueError)


def test_other_threads_have_nothing_to_defer():
    seen = []

    def step():
        with interrupts.Deferred():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_handlers_that_are_not_pythons_stay(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        with interrupts.Deferred():
            assert signal.getsignal(signal.SIGINT) == handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_function_of_another_program_is_called_for_what_was_deferred():
    """R does this: the system calls R's handler, which calls Python's."""
    import ctypes

    called = []
    function = ctypes.CFUNCTYPE(None, ctypes.c_int)(called.append)
    entry = ctypes.cast(function, ctypes.c_void_p)
    set_entry = ctypes.pythonapi.PyOS_setsig
    set_entry.restype = ctypes.c_void_p
    with interrupts.Deferred():
        pass
    before = set_entry(signal.SIGINT, entry)
    try:
        for _ in range(2):
            with interrupts.Deferred():
                signal.raise_signal(signal.SIGINT)
                assert not called
            assert called.pop() == signal.SIGINT
    finally:
        set_entry(signal.SIGINT, ctypes.c_void_p(before))
