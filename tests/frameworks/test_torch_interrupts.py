"""An interrupted step has updated either all groups or none."""

import copy

import pytest
import torch
from interrupting import at_every_line, interruptible  # noqa: F401

from adadelta.torch import Adadelta, adadelta

FUSED = [None, False]


@pytest.fixture(scope="module", autouse=True)
def _kernels():
    """Compile the kernels first: compiling would start again at each interrupt."""
    params = [torch.nn.Parameter(torch.ones(1, dtype=it)) for it in (torch.float32, torch.float64)]
    for param in params:
        param.grad = torch.ones_like(param)
    Adadelta(params).step()


def is_of_one_step(params, states):
    (count,) = {state["step"].item() for state in states}
    # A step moves each parameter by about 1.
    assert max(param.item() for param in params) - min(param.item() for param in params) < 0.1
    return count


@pytest.mark.parametrize("fused", FUSED)
def test_all_groups_are_of_the_same_step(fused):
    params = [torch.nn.Parameter(torch.ones(1, dtype=it)) for it in (torch.float32, torch.float64)]
    params.append(torch.nn.Parameter(torch.ones(1)))
    groups = [{"params": params[:2]}, {"params": params[2:]}]
    optimizer = Adadelta(groups, rho=0.0, eps=1.0, fused=fused)
    for param in params:
        param.grad = torch.ones_like(param)
    counts = []

    def check():
        if optimizer.state:
            counts.append(is_of_one_step(params, optimizer.state.values()))
            assert len(optimizer.state) == 3

    # A repeated step makes fewer checks than the first, so it runs fewer lines.
    assert at_every_line(optimizer.step, check) > 20
    assert at_every_line(optimizer.step, check) > 20
    assert len(set(counts)) > 10


def test_the_counts_of_skipped_steps_are_of_the_same_step():
    params = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = Adadelta([{"params": [param]} for param in params], skip_nonfinite=True)
    for param in params:
        param.grad = torch.full_like(param, torch.inf)

    def check():
        first, second = (int(group["skipped"]) for group in optimizer.param_groups)
        assert first == second

    assert at_every_line(optimizer.step, check) > 20
    assert optimizer.skipped > 0


@pytest.mark.parametrize("fused", FUSED)
def test_the_functional_form_too(fused):
    params = [torch.ones(1), torch.ones(1, dtype=torch.float64)]
    grads, averages = copy.deepcopy(params), [torch.zeros_like(it) for it in params]
    deltas, counts = copy.deepcopy(averages), [torch.zeros(()) for _ in params]

    def step():
        adadelta(
            params, grads, averages, deltas, counts,
            lr=1.0, rho=0.0, eps=1.0, weight_decay=0.0, maximize=False, fused=fused,
        )  # fmt: skip

    assert at_every_line(step, lambda: is_of_one_step(params, [{"step": it} for it in counts])) > 9
