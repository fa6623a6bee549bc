"""adadelta.torch in several processes: the numbers of one process on the same global batch."""

import functools
import json

import numpy as np
import pytest
from torch_processes import run
from torch_training import STEPS, trained

OPTIONS = {
    "defaults": {},
    "float32": {"dtype": "float32"},
    "numbers": {"lr": 0.5, "rho": 0.8, "eps": 1e-4},
    "rate that is a tensor": {"lr": 0.5, "rate_is_tensor": True},
    "weight decay": {"weight_decay": 0.1},
    "decoupled weight decay": {"weight_decay": 0.1, "decoupled_weight_decay": True},
    "maximize": {"maximize": True},
    "foreach": {"foreach": True},
    "one by one": {"foreach": False},
    "no kernel": {"fused": False},
    "kernel": {"fused": True},
    "capturable": {"capturable": True},
    "clipped": {"clip": 0.5},
    "skip": {"skip_nonfinite": True},
    "skip, capturable": {"skip_nonfinite": True, "capturable": True},
    "skip, no kernel": {"skip_nonfinite": True, "fused": False},
    "skip, kernel": {"skip_nonfinite": True, "fused": True},
    "skip, clipped": {"skip_nonfinite": True, "clip": 0.5},
    "skip, weight decay": {"skip_nonfinite": True, "weight_decay": 0.1, "maximize": True},
}
FAST = ("defaults", "skip")
# Processes are summed in a different order: 1e-16 and 6e-8 in each step.
TOLERANCE = {"float64": 1e-12, "float32": 1e-4}
ENGINES = ("ddp", "zero", "fsdp1", "fsdp1_flat", "fsdp2", "tensor_parallel")
CASES = [
    (engine, name)
    for engine in ENGINES
    for name in sorted(set(OPTIONS) - set(FAST))
    # torch's own clipping does not accept DTensors together with plain tensors.
    if not ("clip" in OPTIONS[name] and engine == "tensor_parallel")
]


@functools.cache
def alone(options, bad):
    return trained(0, None, json.loads(options), bad)


def check(engine, count, name):
    options, bad = OPTIONS[name], name.startswith("skip")
    if "clip" in options and engine.startswith("fsdp1"):
        # torch's own clipping under FSDP1 supports float32 only.
        options = {**options, "dtype": "float32"}
    first, *others = run(count, trained, engine, options, bad)
    expected = alone(json.dumps(options), bad)
    assert {it["skipped"] for it in (first, *others)} == {expected["skipped"]} == {int(bad)}
    assert first["step"] == expected["step"] == {STEPS - bad}
    for parameter, arrays in expected["arrays"].items():
        for found, array in zip(first["arrays"][parameter], arrays, strict=True):
            limit = TOLERANCE[options.get("dtype", "float64")]
            np.testing.assert_allclose(found, array, rtol=limit, atol=limit, err_msg=parameter)


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_equal_one(engine, name):
    check(engine, 2, name)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "name"), CASES)
def test_two_processes_equal_one_with_options(engine, name):
    check(engine, 2, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("engine", [*ENGINES, "hybrid", "two_dimensions"])
def test_four_processes_equal_one(engine, name):
    check(engine, 4, name)
