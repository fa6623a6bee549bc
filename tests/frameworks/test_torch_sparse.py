"""A step with a sparse gradient costs its rows, and is as many dense steps to all who look."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from interrupting import at_every_line, interruptible  # noqa: F401

import adadelta
from adadelta.torch import Adadelta

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks")
AVERAGES = ("square_avg", "acc_delta")


def sparse(rows, width=2, dtype=torch.float32, size=5):
    """A gradient whose row of index i is i + 1; rows may repeat."""
    values = torch.tensor(rows, dtype=dtype)[:, None].expand(-1, width) + 1
    return torch.sparse_coo_tensor([rows], values, (size, width))


class Pair:
    """A parameter with sparse gradients, and one that gets the same gradients as dense ones."""

    def __init__(self, value, **options):
        self.params = [torch.nn.Parameter(value.clone()) for _ in range(2)]
        self.optimizers = [Adadelta([param], **options) for param in self.params]

    def step(self, gradient):
        self.params[0].grad, self.params[1].grad = gradient, gradient.to_dense()
        for optimizer in self.optimizers:
            optimizer.step()

    def state(self, name):
        return [
            it.state[param][name] for it, param in zip(self.optimizers, self.params, strict=True)
        ]

    def check(self, **tolerance):
        """Hold parameters and state to those of dense steps; both must be equal by default."""
        tolerance = {"rtol": 0.0, "atol": 0.0, **tolerance}
        torch.testing.assert_close(*self.params, **tolerance)
        for name in AVERAGES:
            torch.testing.assert_close(*self.state(name), **tolerance)
        assert torch.equal(*self.state("step"))


def random_steps(pair, steps, reads=False):
    """Make random steps: repeated rows, none at all, dense gradients, and another rho."""
    generator = np.random.default_rng(0)
    shape, dtype = pair.params[0].shape, pair.params[0].dtype
    for step in range(steps):
        if step % 97 == 96:
            rho = float(generator.uniform(0.8, 0.99))
            for optimizer in pair.optimizers:
                optimizer.param_groups[0]["rho"] = rho
        count = int(generator.integers(0, 6))
        rows = generator.integers(0, shape[0], count)
        values = torch.from_numpy(generator.normal(size=(count, *shape[1:]))).to(dtype)
        gradient = torch.sparse_coo_tensor(rows[None], values, shape)
        if step % 53 == 52:
            gradient = gradient.to_dense()
        pair.step(gradient)
        if reads and step % 101 == 100:
            pair.check(rtol=1e-12)
        if reads and step % 211 == 210:
            optimizer = pair.optimizers[0]
            saved = io.BytesIO()
            torch.save(optimizer.state_dict(), saved)
            saved.seek(0)
            pair.optimizers[0] = Adadelta([pair.params[0]])
            pair.optimizers[0].load_state_dict(torch.load(saved))


@pytest.mark.parametrize("reads", [True, False])
def test_the_trajectory_is_that_of_dense_steps(reads):
    pair = Pair(torch.linspace(-1, 1, 120, dtype=torch.float64).reshape(40, 3))
    random_steps(pair, 1000, reads)
    pair.check(rtol=1e-12)


def test_the_trajectory_is_that_of_dense_steps_up_to_their_rounding_in_float32():
    pair = Pair(torch.linspace(-1, 1, 120).reshape(40, 3))
    random_steps(pair, 1000)
    # Dense steps round each decay, and lazy ones all decays together. The largest difference was
    # 8.5 * 2**-24 for a parameter, and 7.4 * 2**-24 for an average.
    pair.check(rtol=16 * 2.0**-24)


def test_an_average_that_overflowed_elsewhere_stays_infinite():
    pair = Pair(torch.ones(5, 2), rho=0.3)
    pair.step(sparse([0, 1]))
    for average in pair.state("square_avg"):
        average[1] = torch.inf
    # 0.3 ** 100 is too small for float32 and becomes 0, and infinity times 0 would be NaN.
    for _ in range(100):
        pair.step(sparse([0]))
    pair.step(sparse([1]))
    pair.check(rtol=1e-5)
    assert pair.params[0].isfinite().all()


def test_rows_that_were_never_behind_have_the_bits_of_dense_steps():
    pair = Pair(torch.ones(5, 2))
    for _ in range(20):
        pair.step(sparse([4, 0, 3, 1, 2]))
    pair.check()


def test_a_step_leaves_the_other_rows_alone():
    pair = Pair(torch.ones(5, 2))
    pair.step(sparse([0, 1, 2, 3, 4]))
    (fetched, _), before = pair.state("square_avg"), pair.state("square_avg")[0].clone()
    pair.step(sparse([1]))
    assert torch.equal(fetched[[0, 2, 3, 4]], before[[0, 2, 3, 4]])
    assert (fetched[1] != before[1]).all()
    pair.check()
    assert (fetched != before).all()


SHAPE = (4, 3, 6)
VALUES = torch.arange(1.0, 73.0).reshape(SHAPE)
INDICES = torch.tensor([[3, 0, 3, 0], [1, 2, 1, 0]])
HYBRID = torch.sparse_coo_tensor(INDICES, VALUES[:, 0], SHAPE)
FORMS = {
    "uncoalesced": torch.sparse_coo_tensor(INDICES[:1], VALUES, SHAPE),
    "coalesced": HYBRID.to_dense().to_sparse(1),
    "hybrid": HYBRID,
    "without dense dimensions": HYBRID.to_dense().to_sparse(),
    "empty": torch.sparse_coo_tensor(size=SHAPE),
    "empty hybrid": torch.zeros(SHAPE).to_sparse(1),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_sparse_gradients(form):
    pair = Pair(torch.ones(SHAPE))
    pair.step(FORMS[form])
    for other in FORMS.values():
        pair.step(other)
        pair.step(FORMS[form])
        pair.step(FORMS[form])
    assert adadelta.kernel_info(pair.optimizers[0])[0]["reason"] is None
    pair.check(rtol=1e-6)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.complex64, torch.complex128]
)
def test_every_dtype(dtype):
    pair = Pair(torch.ones(5, 2, dtype=dtype))
    for rows in ([0, 1], [1, 1], [3], [], [0], [4, 0]):
        pair.step(sparse(rows, dtype=dtype) * (1 + 2j if dtype.is_complex else 1))
    pair.check(rtol=1e-6)
    assert adadelta.kernel_info(pair.optimizers[0])[0]["reason"] is None


@pytest.mark.parametrize("shape", [(0, 2), (3, 0)])
def test_parameters_without_elements(shape):
    pair = Pair(torch.ones(shape))
    pair.step(torch.sparse_coo_tensor(size=(shape)).to_dense().to_sparse(1))
    pair.check()


READERS = {
    "state": lambda optimizer: optimizer.state,
    "state_dict()": lambda optimizer: optimizer.state_dict(),
    "deepcopy": copy.deepcopy,
    "pickle": lambda optimizer: pickle.dumps(optimizer),
    "add_param_group": lambda optimizer: (
        optimizer.add_param_group({"params": [torch.ones(1)]}),
        optimizer.state,
    ),
    "export_state": adadelta.export_state,
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_sees_the_state_of_dense_steps(reader):
    pair = Pair(torch.ones(5, 2))
    pair.step(sparse([0, 1, 2]))
    (fetched, _) = pair.state("square_avg")
    pair.step(sparse([1]))
    READERS[reader](pair.optimizers[0])
    torch.testing.assert_close(fetched, pair.state("square_avg")[1], rtol=1e-6, atol=0.0)


def test_copies_and_loaded_states_go_on():
    pair = Pair(torch.ones(5, 2))
    for rows in ([0, 1, 2], [1], [3]):
        pair.step(sparse(rows))
    copied = pickle.loads(pickle.dumps(pair.optimizers[0]))
    pair.step(sparse([0, 2]))
    pair.step(sparse([1, 3]))
    (param,) = copied.param_groups[0]["params"]
    for rows in ([0, 2], [1, 3]):
        param.grad = sparse(rows)
        copied.step()
    for name, value in copied.state[param].items():
        assert torch.equal(value, pair.state(name)[0])
    # Rows of the state that is replaced are behind, and those of the new one are not.
    pair.optimizers[0].load_state_dict(pair.optimizers[1].state_dict())
    pair.step(sparse([2]))
    pair.check(rtol=1e-6)


def test_a_shallow_copy_shares_the_state():
    pair = Pair(torch.ones(5, 2))
    copied = list(map(copy.copy, pair.optimizers))
    pair.step(sparse([0, 1, 2]))
    for rows in ([1], [3], [0, 4], [2]):
        pair.optimizers, copied = copied, pair.optimizers
        pair.step(sparse(rows))
    pair.check(rtol=1e-6)


def test_a_state_that_shares_its_tensors_with_the_optimizer_is_loaded_as_it_is_now():
    pair = Pair(torch.ones(5, 2))
    pair.step(sparse([0, 1, 2]))
    saved = [it.state_dict() for it in pair.optimizers]
    pair.step(sparse([1]))
    for optimizer, state in zip(pair.optimizers, saved, strict=True):
        optimizer.load_state_dict(state)
    pair.check(rtol=1e-6)


def test_the_host_goes_on():
    pair = Pair(torch.ones(5, 2, dtype=torch.float64))
    for rows in ([0, 1, 2], [1], [3]):
        pair.step(sparse(rows, dtype=torch.float64))
    hosts = []
    for param, optimizer in zip(pair.params, pair.optimizers, strict=True):
        param.grad = sparse([1, 4], dtype=torch.float64).to_dense()
        hosts.append(torch.optim.Adadelta([param]))
        hosts[-1].load_state_dict(optimizer.state_dict())
        hosts[-1].step()
    pair.optimizers = hosts
    pair.check(rtol=1e-14)


def test_state_that_was_replaced_behind_the_optimizer_is_used():
    pair = Pair(torch.ones(5, 2))
    pair.step(sparse([0, 1, 2]))
    states = [it.state[param] for it, param in zip(pair.optimizers, pair.params, strict=True)]
    pair.step(sparse([1]))
    for state in states:
        state["square_avg"] = torch.full((5, 2), 2.0)
    pair.step(sparse([0, 3]))
    pair.check(rtol=1e-6)


def test_averages_with_other_memory_are_used():
    pair = Pair(torch.ones(5, 2))
    pair.step(sparse([0, 1, 2]))
    averages = pair.state("square_avg")
    pair.step(sparse([1]))
    for average in averages:
        average.data = torch.full((5, 2), 2.0)
    pair.step(sparse([0, 3]))
    pair.check(rtol=1e-6)


def test_steps_inside_and_outside_of_inference_mode():
    pair = Pair(torch.ones(5, 2))
    pair.step(sparse([0, 1]))
    pair.state("square_avg")
    with torch.inference_mode():
        pair.step(sparse([1, 2]))
    pair.step(sparse([2, 3]))
    pair.check(rtol=1e-6)


WRONG = {
    "too large": [[0, 5]],
    "negative": [[0, -1]],
    "too large in the second dimension": [[0, 1], [1, 2]],
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_gradient_that_does_not_fit_is_refused_before_anything_changes(wrong, weight_decay):
    indices = WRONG[wrong]
    params = [torch.nn.Parameter(torch.ones(5, 2)) for _ in range(2)]
    groups = [{"params": [param]} for param in params]
    optimizer = Adadelta(groups, weight_decay=weight_decay)
    for param in params:
        param.grad = sparse([1, 2])
    optimizer.step()
    before = copy.deepcopy((params, optimizer.state_dict()["state"]))
    values = torch.ones(2, 2) if len(indices) == 1 else torch.ones(2)
    # torch looks at the rows of a new tensor, but not at those that backward() computes.
    gradient = torch.sparse_coo_tensor(torch.zeros(len(indices), 2), values, (5, 2))
    gradient._indices().copy_(torch.tensor(indices))
    params[1].grad = gradient
    with pytest.raises(ValueError, match=r"the rows of the gradient .* must be from 0 to"):
        optimizer.step()
    for old, new in zip(before[0], params, strict=True):
        assert torch.equal(old, new)
    for old, new in zip(before[1].values(), optimizer.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(old[name], new[name]) for name in old)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_step_is_skipped(value):
    pair = Pair(torch.ones(5, 2), skip_nonfinite=True)
    pair.step(sparse([0, 1]))
    pair.step(sparse([1, 2]) * value)
    pair.step(sparse([1, 2]))
    pair.check(rtol=1e-6)
    assert pair.optimizers[0].skipped == 1


def test_each_skipped_step_of_a_group_counts_once():
    params = [torch.nn.Parameter(torch.ones(5, 2)) for _ in range(2)]
    optimizer = Adadelta(params, skip_nonfinite=True)
    params[0].grad, params[1].grad = sparse([1]) * np.nan, torch.ones(5, 2)
    optimizer.step()
    assert optimizer.skipped == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"weight_decay": 0.1}, "weight decay"),
        ({"weight_decay": 0.1, "decoupled_weight_decay": True}, "weight decay"),
        ({"capturable": True}, "`capturable`"),
        ({"maximize": True}, None),
        ({"foreach": False}, None),
        ({"fused": False}, None),
        ({"fused": True}, None),
        ({"lr": torch.tensor(0.5)}, None),
    ],
    ids=str,
)
def test_options(options, reason):
    pair = Pair(torch.ones(5, 2), **options)
    for rows in ([0, 1], [1, 1], [3]):
        pair.step(sparse(rows))
    before = pair.optimizers[0].state[pair.params[0]]["square_avg"]
    kept = before.clone()
    pair.step(sparse([3]))
    assert (before[1] != kept[1]).all() == (reason is not None)
    shown = adadelta.kernel_info(pair.optimizers[0])[0]["reason"]
    if reason is not None:
        assert shown.startswith("a sparse gradient updates all rows: ")
        assert reason in shown
    pair.check(rtol=1e-6)


def test_the_reason_is_reported_for_the_parameters_of_the_last_step():
    params = [torch.nn.Parameter(torch.ones(5, 2)) for _ in range(2)]
    optimizer = Adadelta(params, weight_decay=0.1)
    for place, param in enumerate(params):
        param.grad = sparse([1])
        optimizer.step()
        param.grad = None
        assert "weight decay" in adadelta.kernel_info(optimizer)[place]["reason"]


def test_dense_and_sparse_gradients_in_one_group():
    params = [torch.nn.Parameter(torch.ones(5, 2)) for _ in range(6)]
    optimizer, other = Adadelta(params[:3]), Adadelta(params[3:])
    for rows in ([0, 1], [1], [2], [0]):
        for place, param in enumerate(params):
            param.grad = sparse(rows) if place in (0, 2) else sparse(rows).to_dense()
        optimizer.step()
        other.step()
    for one, same in zip(params[:3], params[3:], strict=True):
        torch.testing.assert_close(one, same, rtol=1e-6, atol=0.0)
        for name, value in optimizer.state[one].items():
            torch.testing.assert_close(value, other.state[same][name], rtol=1e-6, atol=0.0)


def test_parameters_that_share_memory():
    pairs = []
    for is_sparse in (True, False):
        whole = torch.ones(6, 2)
        params = [torch.nn.Parameter(it) for it in (whole[:4], whole[2:])]
        optimizer = Adadelta(params)
        for rows in ([0, 1, 2], [3, 2], [2]):
            for param in params:
                gradient = sparse(rows, size=4)
                param.grad = gradient if is_sparse else gradient.to_dense()
            optimizer.step()
        pairs.append(whole)
    torch.testing.assert_close(*pairs)


def test_averages_that_processes_share_are_updated_in_all_rows():
    pair = Pair(torch.ones(5, 2))
    pair.step(sparse([0, 1]))
    shared = [it.share_memory_() for name in AVERAGES for it in pair.state(name)]
    kept = shared[0].clone()
    pair.step(sparse([0]))
    assert (shared[0][1] != kept[1]).all()
    assert "processes" in adadelta.kernel_info(pair.optimizers[0])[0]["reason"]
    pair.check(rtol=1e-6)


@pytest.mark.parametrize("fused", [None, False])
def test_an_interrupted_step_is_done_or_not(fused):
    def trained(steps):
        pair = Pair(torch.ones(5, 2), fused=fused)
        for step in range(steps):
            pair.step(sparse([step % 5, 1]).to_dense())
        return pair.params[0].detach(), *(pair.state(name)[0] for name in AVERAGES)

    params = [torch.nn.Parameter(torch.ones(5, 2)) for _ in range(2)]
    optimizer = Adadelta([{"params": [it]} for it in params], fused=fused)
    counts = set()

    def done():
        return int(optimizer.__dict__["state"][params[0]]["step"]) if optimizer.state else 0

    def step():
        for param in params:
            param.grad = sparse([done() % 5, 1])
        optimizer.step()

    def check():
        counts.add(done())
        for param in params:
            found = [param.detach(), *(optimizer.state[param][name] for name in AVERAGES)]
            for one, other in zip(found, trained(done()), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-30)

    step()
    assert at_every_line(step, check, stride=7) > 20
    assert len(counts) > 5


@pytest.mark.parametrize("first", [True, False])
def test_a_compiled_step_follows(first):
    pair = Pair(torch.ones(5, 2))
    optimizer = pair.optimizers[0]
    compiled = torch.compile(optimizer.step, backend="aot_eager")
    if first:
        pair.params[0].grad = pair.params[1].grad = sparse([0, 1]).to_dense()
        compiled()
        pair.optimizers[1].step()
    for _ in range(2):
        pair.step(sparse([2, 1]))
        pair.step(sparse([1]))
        pair.params[0].grad = pair.params[1].grad = sparse([3]).to_dense()
        compiled()
        pair.optimizers[1].step()
    pair.check(rtol=1e-6)
