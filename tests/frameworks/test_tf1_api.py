"""`adadelta.tf1.Adadelta` works in graphs, in tf.function and eagerly, with the same numbers."""

import inspect

import numpy as np
import pytest
import tensorflow as tf

import adadelta
import adadelta.tf1
import vectors
from adadelta.state import StateMismatchError

OURS = adadelta.tf1.Adadelta
MODES = ("graph", "function", "eager")
V1 = tf.compat.v1


class Steps:
    """An optimizer on variables whose gradients are given: the loss is the product of the two."""

    def __init__(self, optimizer, starts, mode, dtype="float32", resource=True, constraints=None):
        self.optimizer, self.mode = optimizer, mode
        self.shapes = [np.shape(start) for start in starts]
        self.graph = tf.Graph() if mode == "graph" else None
        with self:
            self.variables = [
                V1.Variable(
                    np.asarray(start),
                    dtype=dtype,
                    name=f"x{number}",
                    use_resource=resource,
                    constraint=(constraints or {}).get(number),
                )
                for number, start in enumerate(starts)
            ]
            if mode == "graph":
                self.given = [V1.placeholder(dtype, shape) for shape in self.shapes]
                self.updates = optimizer.get_updates(self.loss(self.given), self.variables)
                self.session = V1.Session(graph=self.graph)
                self.session.run(V1.global_variables_initializer())
            elif mode == "function":
                self.function = tf.function(
                    lambda given: optimizer.get_updates(self.loss(given), self.variables) and None
                )

    def __enter__(self):
        self.scopes = [] if self.graph is None else [self.graph.as_default()]
        if hasattr(self, "session"):
            self.scopes.append(self.session.as_default())
        for scope in self.scopes:
            scope.__enter__()
        return self

    def __exit__(self, *error):
        for scope in reversed(self.scopes):
            scope.__exit__(*error)

    def loss(self, gradients):
        pairs = zip(gradients, self.variables, strict=True)
        return tf.add_n([tf.reduce_sum(gradient * variable) for gradient, variable in pairs])

    def call(self, gradients):
        dtype = self.variables[0].dtype.base_dtype
        if self.mode == "graph":
            self.session.run(self.updates, dict(zip(self.given, gradients, strict=True)))
        elif self.mode == "function":
            self.function([tf.constant(gradient, dtype) for gradient in gradients])
        else:
            gradients = [tf.constant(gradient, dtype) for gradient in gradients]
            assert self.optimizer.get_updates(lambda: self.loss(gradients), self.variables) == []

    def values(self):
        if self.mode == "graph":
            return self.session.run(self.variables)
        return [variable.numpy() for variable in self.variables]


# The shared vectors

TOLERANCE = {"float64": 1e-10, "float32": 2e-4}
ARGUMENTS = {
    "learning_rate": "lr",
    "rho": "rho",
    "epsilon": "epsilon",
    "decay": "decay",
    "clipnorm": "clipnorm",
    "clipvalue": "clipvalue",
}


def fits(case):
    given = {name for name, value in case["arguments"].items() if value is not None}
    return (
        given <= set(ARGUMENTS)
        and not isinstance(case["arguments"]["learning_rate"], dict)
        and not any(gradient is None for call in case["gradients"] for gradient in call)
    )


CASES = [case for name in vectors.NAMES for case in vectors.load(name) if fits(case)]


def non_negative(value):
    return tf.where(value < 0, tf.zeros_like(value), value)


def test_there_are_cases_of_every_kind():
    assert {"tf1 defaults", "tf1 with decay of the learning rate", "clipnorm", "constraint"} < {
        case["name"] for case in CASES
    }


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"].replace(" ", "-"))
def test_numbers_of_the_shared_vectors(case, mode, dtype):
    arguments = {
        ARGUMENTS[name]: value for name, value in case["arguments"].items() if value is not None
    }
    constraints = {
        number: non_negative
        for number, described in enumerate(case["variables"])
        if described["constraint"]
    }
    run = Steps(
        OURS(**arguments),
        [it["initial"] for it in case["variables"]],
        mode,
        dtype,
        constraints=constraints,
    )
    expected = {state["call"]: state for state in case["expected"]}
    count = len(run.variables)
    for call, gradients in enumerate(case["gradients"], start=1):
        run.call(gradients)
        if call not in expected:
            continue
        with run:
            weights = run.optimizer.get_weights()
        for slot, got in (
            ("variables", run.values()),
            ("square_avg", weights[:count]),
            ("acc_delta", weights[count:]),
        ):
            for ours, exact in zip(got, expected[call][slot], strict=True):
                scale = np.max(np.abs(exact), initial=1e-30)
                tolerance = TOLERANCE[dtype]
                np.testing.assert_allclose(
                    ours / scale, exact / scale, rtol=tolerance, atol=tolerance, err_msg=slot
                )


# The API


def test_it_is_found_after_importing_the_package():
    assert adadelta.tf1.Adadelta is OURS


def test_the_signature_is_that_of_tf_1_13():
    parameters = inspect.signature(OURS).parameters
    assert {name: it.default for name, it in parameters.items() if name != "kwargs"} == {
        "lr": 1.0,
        "rho": 0.95,
        "epsilon": None,
        "decay": 0.0,
    }


def test_epsilon_none_is_that_of_the_backend():
    backend = tf.keras.backend
    assert OURS().get_config()["epsilon"] == backend.epsilon() == 1e-7
    try:
        backend.set_epsilon(1e-4)
        assert OURS().epsilon == 1e-4 and OURS(epsilon=1e-6).epsilon == 1e-6
    finally:
        backend.set_epsilon(1e-7)


@pytest.mark.parametrize("mode", MODES)
def test_the_rate_falls_with_the_calls(mode):
    run = Steps(OURS(rho=0.0, epsilon=1.0, decay=0.5), [[0.0]], mode, "float64")
    before, u, seen = 0.0, 0.0, []
    for _ in range(4):
        run.call([np.ones(1)])
        step = np.sqrt((u + 1) / 2)
        u = step * step
        (value,) = run.values()
        seen.append(float((before - value[0]) / step))
        before = value[0]
    # Measured with TF 1.13's class as it lives on in tf_keras.
    np.testing.assert_allclose(seen, [1, 1 / 1.5, 1 / 2, 1 / 2.5], rtol=1e-12)
    with run:
        assert run.optimizer.get_config()["lr"] == 1.0


@pytest.mark.parametrize("mode", MODES)
def test_get_gradients_are_clipped(mode):
    for options, expected in (
        ({}, [3.0, 4.0]),
        ({"clipnorm": 1.0}, [0.6, 0.8]),
        ({"clipvalue": 3.5}, [3.0, 3.5]),
        ({"clipnorm": np.inf}, [3.0, 4.0]),
    ):
        optimizer = OURS(**options)
        if mode == "eager":
            x = tf.Variable([1.0, 1.0])
            (gradient,) = optimizer.get_gradients(lambda x=x: 3 * x[0] + 4 * x[1], [x])
        elif mode == "function":
            x = tf.Variable([1.0, 1.0])
            (gradient,) = tf.function(
                lambda x=x, own=optimizer: own.get_gradients(3 * x[0] + 4 * x[1], [x])
            )()
        else:
            with tf.Graph().as_default(), V1.Session() as session:
                x = V1.get_variable("x", initializer=[1.0, 1.0])
                (gradient,) = optimizer.get_gradients(3 * x[0] + 4 * x[1], [x])
                session.run(V1.global_variables_initializer())
                gradient = session.run(gradient)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_a_gradient_that_can_not_be_computed():
    with tf.Graph().as_default():
        x, y = V1.get_variable("x", initializer=1.0), V1.get_variable("y", initializer=1.0)
        optimizer = OURS()
        for loss in (2 * x, x + tf.cast(tf.argmax([y, y]), "float32")):
            with pytest.raises(ValueError, match="gradient can't be computed for y"):
                optimizer.get_gradients(loss, [x, y])
            with pytest.raises(ValueError, match="gradient can't be computed for y"):
                optimizer.get_updates(loss, [x, y])
        assert not optimizer.built
    x, y = tf.Variable(1.0, name="x"), tf.Variable(1.0, name="y")
    with pytest.raises(ValueError, match="gradient can't be computed for y"):
        OURS().get_updates(lambda: 2 * x, [x, y])
    with pytest.raises(ValueError, match="`loss` must be a function of no argument"):
        OURS().get_updates(2 * x, [x])
    assert float(x) == 1


@pytest.mark.parametrize("mode", MODES)
def test_weights(mode):
    run = Steps(OURS(), [[1.0, 2.0], [[3.0]]], mode)
    run.call([np.ones(2), np.ones((1, 1))])
    with run:
        weights = run.optimizer.get_weights()
        # The averages of squared gradients come first, and the number of calls is not included.
        assert [weight.shape for weight in weights] == [(2,), (1, 1), (2,), (1, 1)]
        np.testing.assert_allclose(weights[0], [0.05, 0.05], rtol=1e-6)
        changed = [weight + 1 for weight in weights]
        run.optimizer.set_weights(changed)
        for got, expected in zip(run.optimizer.get_weights(), changed, strict=True):
            np.testing.assert_array_equal(got, expected)
        for wrong, message in (
            (changed[:3], "must be a list of 4 arrays"),
            ([*changed[:3], np.zeros((1, 2))], r"must have shape \(1, 1\); received \(1, 2\)"),
        ):
            with pytest.raises(ValueError, match=message):
                run.optimizer.set_weights(wrong)
        for got, expected in zip(run.optimizer.get_weights(), changed, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_weights_before_there_are_any():
    assert OURS().get_weights() == []
    OURS().set_weights([])
    with pytest.raises(ValueError, match="must be a list of 0 arrays"):
        OURS().set_weights([np.zeros(1)])


def test_weights_of_a_graph_are_initialized_when_they_are_asked_for():
    with tf.Graph().as_default(), V1.Session():
        x = V1.get_variable("x", initializer=[1.0, 2.0])
        optimizer = OURS()
        optimizer.get_updates(x[0] + x[1], [x])
        np.testing.assert_array_equal(optimizer.get_weights(), np.zeros((2, 2)))
        optimizer.set_weights(np.ones((2, 2)))
        np.testing.assert_array_equal(optimizer.get_weights(), np.ones((2, 2)))


@pytest.mark.parametrize("mode", MODES)
def test_rates_can_be_set(mode):
    run = Steps(OURS(lr=0.5), [[1.0]], mode)
    run.call([np.ones(1)])
    with run:
        before = run.values()[0]
        assert run.optimizer.get_config()["lr"] == 0.5
        run.optimizer.lr = 0.0
        run.call([np.ones(1)])
        np.testing.assert_array_equal(run.values()[0], before)
        run.optimizer.lr, run.optimizer.decay = 0.1, 0.25
        assert run.optimizer.get_config()["lr"] == 0.1  # not 0.10000000149
        assert run.optimizer.get_config()["decay"] == 0.25
        with pytest.raises(ValueError, match="`lr` must be a finite number of at least 0"):
            run.optimizer.lr = -1.0


@pytest.mark.parametrize("options", [{}, {"clipnorm": 2.0}, {"clipvalue": 0.5}])
def test_the_config(options):
    import json

    optimizer = OURS(0.1, 0.9, 1e-5, 0.01, **options)
    config = json.loads(json.dumps(optimizer.get_config()))
    assert config == {"lr": 0.1, "rho": 0.9, "epsilon": 1e-5, "decay": 0.01, **options}
    assert OURS.from_config(config).get_config() == config


BAD = [
    ({"lr": -1.0}, ValueError, "`lr` must be a finite number of at least 0; received -1.0"),
    ({"lr": np.nan}, ValueError, "`lr` must be a finite number of at least 0"),
    ({"lr": lambda: 0.1}, TypeError, "`lr` must be a finite number of at least 0"),
    ({"rho": 1.0}, ValueError, "`rho` must be a number of at least 0 and less than 1"),
    ({"epsilon": 0}, ValueError, "`epsilon` must be a finite number greater than 0"),
    ({"decay": -1}, ValueError, "`decay` must be a finite number of at least 0"),
    ({"decay": np.nan}, ValueError, "`decay` must be a finite number of at least 0"),
    ({"clipnorm": 0}, ValueError, "`clipnorm` must be a number greater than 0"),
    ({"clipvalue": "1"}, TypeError, "`clipvalue` must be a number greater than 0"),
    ({"clipnorm": 1, "clipvalue": 1}, ValueError, "Only one of `clipnorm` and `clipvalue` can"),
    ({"learning_rate": 1}, TypeError, "is not an argument of adadelta.tf1.*did you mean `lr`"),
    ({"global_clipnorm": 1}, TypeError, "`global_clipnorm` is not an argument of"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        OURS(**options)


def test_a_second_way_of_clipping_is_refused_when_it_is_set():
    optimizer = OURS(clipnorm=1.0)
    with pytest.raises(ValueError, match="`clipvalue`"):
        optimizer.clipvalue = 0.5
    assert optimizer.clipvalue is None


def test_variables_that_can_not_be_updated_are_refused():
    x, y = tf.Variable([1.0], name="x"), tf.Variable([1.0], name="y")

    def loss():
        return x[0] * y[0]

    with pytest.raises(ValueError, match="the variable x is given more than once"):
        OURS().get_updates(loss, [x, x])
    with pytest.raises(ValueError, match="`params` must be a list of variables"):
        OURS().get_updates(loss, [])
    with pytest.raises(ValueError, match="`epsilon` must be at least"):
        OURS(epsilon=1e-40).get_updates(loss, [x])
    optimizer = OURS()
    optimizer.get_updates(loss, [x])
    before = x.numpy()
    with pytest.raises(ValueError, match="belongs to other variables"):
        optimizer.get_updates(loss, [y])
    with pytest.raises(ValueError, match="`rho` can't be changed once the optimizer is built"):
        optimizer.rho = 0.5
    np.testing.assert_array_equal([x.numpy(), y.numpy()], [before, [1.0]])


@pytest.mark.parametrize("mode", MODES)
def test_rows_give_the_numbers_of_dense_gradients(mode):
    generator = np.random.default_rng(0)
    ids = [generator.integers(0, 5, 4) for _ in range(6)]
    weights = generator.normal(size=(4, 2)).astype("float32")

    def trained(sparse):
        def loss(x, rows):
            taken = tf.gather(x, rows) if sparse else tf.one_hot(rows, 5) @ x
            return tf.reduce_sum(taken * weights)

        optimizer = OURS(clipnorm=1.0)
        if mode == "graph":
            with tf.Graph().as_default(), V1.Session() as session:
                x = V1.get_variable("x", initializer=np.ones((5, 2), "float32"))
                rows = V1.placeholder("int64", [4])
                updates = optimizer.get_updates(loss(x, rows), [x])
                session.run(V1.global_variables_initializer())
                for each in ids:
                    session.run(updates, {rows: each})
                return session.run(x)
        x = tf.Variable(np.ones((5, 2), "float32"))

        def step(rows):
            optimizer.get_updates(lambda: loss(x, rows), [x])

        step = tf.function(step) if mode == "function" else step
        for each in ids:
            step(tf.constant(each))
        return x.numpy()

    np.testing.assert_allclose(trained(True), trained(False), rtol=1e-6)


@pytest.mark.parametrize("mode", ["graph", "function"])
def test_a_program_that_refuses_a_step_changes_nothing(mode):
    optimizer, starts = OURS(), {"x": np.ones((5, 2), "float32"), "y": np.ones(3, "float32")}

    def loss(x, y, row):
        # A long computation, so that everything that does not wait for it runs first.
        matrix = tf.ones((400, 400)) / 400
        for _ in range(20):
            matrix = matrix @ matrix
        rows = row + tf.cast(matrix[0, 0] * 0, row.dtype)
        return tf.reduce_sum(tf.gather(x, [rows])) + tf.reduce_sum(y)

    def check(call, state):
        call(4)
        before = state()
        with pytest.raises(tf.errors.InvalidArgumentError):
            call(5)
        for old, new in zip(before, state(), strict=True):
            np.testing.assert_array_equal(old, new)

    if mode == "graph":
        with tf.Graph().as_default(), V1.Session() as session:
            x, y = (V1.get_variable(name, initializer=starts[name]) for name in "xy")
            row = V1.placeholder("int64", [])
            updates = optimizer.get_updates(loss(x, y, row), [x, y])
            session.run(V1.global_variables_initializer())
            variables = [x, y, optimizer.iterations, *optimizer.weights]
            check(lambda given: session.run(updates, {row: given}), lambda: session.run(variables))
        return
    x, y = (tf.Variable(starts[name]) for name in "xy")
    optimizer.build([x, y])
    step = tf.function(lambda row: optimizer.get_updates(lambda: loss(x, y, row), [x, y]) and None)
    variables = [x, y, optimizer.iterations, *optimizer.weights]
    check(lambda given: step(tf.constant(given)), lambda: [each.numpy() for each in variables])


@pytest.mark.parametrize("resource", [True, False])
def test_variables_of_both_kinds(resource):
    run = Steps(OURS(), [[1.0, 2.0]], "graph", resource=resource)
    other = Steps(OURS(), [[1.0, 2.0]], "eager")
    for call in range(5):
        for each in (run, other):
            each.call([np.full(2, call + 1.0)])
    np.testing.assert_allclose(run.values()[0], other.values()[0], rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_updated_in_float32(mode, dtype):
    run = Steps(OURS(rho=0.999), [[0.0]], mode, dtype)
    for _ in range(20):
        run.call([np.full(1, 2.0)])
    with run:
        square_avg = run.optimizer.get_weights()[0]
    assert square_avg.dtype == np.float32
    np.testing.assert_allclose(square_avg, 4 * (1 - 0.999**20), rtol=1e-5)


def test_the_gradients_of_a_graph_are_those_before_the_step():
    # x's gradient is y and y's is x, so a gradient taken after an update would differ.
    with tf.Graph().as_default(), V1.Session() as session:
        x, y = (V1.get_variable(name, initializer=2.0) for name in "xy")
        updates = OURS(epsilon=1.0).get_updates(x * y, [x, y])
        session.run(V1.global_variables_initializer())
        for _ in range(20):
            session.run(updates)
        one, other = session.run([x, y])
        assert one == other


# Portable state


@pytest.mark.parametrize("mode", MODES)
def test_state_goes_on_in_another_optimizer(mode, tmp_path):
    gradients = np.random.default_rng(0).normal(size=(9, 1, 3))
    whole = Steps(OURS(0.5, decay=0.1), [np.ones(3)], mode)
    first = Steps(OURS(0.5, decay=0.1), [np.ones(3)], mode)
    for call in gradients:
        whole.call(call)
    for call in gradients[:4]:
        first.call(call)
    path = tmp_path / "state.safetensors"
    with first:
        first.optimizer.lr = 0.5
        adadelta.save_state(first.optimizer, path)
    second = Steps(OURS(0.7, decay=0.1), first.values(), mode)
    with second:
        second.optimizer.build(second.variables)
        adadelta.load_state(second.optimizer, path)
        assert second.optimizer.get_config()["lr"] == 0.5
        state = adadelta.export_state(second.optimizer)
        assert state.step == 4 and list(state.parameters) == ["x0"]
    for call in gradients[4:]:
        second.call(call)
    np.testing.assert_array_equal(second.values()[0], whole.values()[0])


def test_state_that_does_not_fit_changes_nothing():
    with pytest.raises(StateMismatchError, match="not built"):
        adadelta.export_state(OURS())
    x = tf.Variable([1.0, 2.0], name="x")
    optimizer = OURS()
    optimizer.get_updates(lambda: x[0] + x[1], [x])
    state = adadelta.export_state(optimizer)
    before = optimizer.get_weights()
    state.parameters["y"] = state.parameters.pop("x")
    with pytest.raises(StateMismatchError, match="missing: x; not in this optimizer: y"):
        adadelta.import_state(optimizer, state)
    np.testing.assert_array_equal(optimizer.get_weights(), before)
    assert int(optimizer.iterations) == 1
