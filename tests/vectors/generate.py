"""Write the shared test vectors: the results of Adadelta, computed in 50-digit arithmetic.

    python generate.py            write the JSON files beside this script
    python generate.py --check    exit 1 if the files on disk differ

This file shares no code with the package, so the same error can't be made in both unnoticed.
Inputs are exact in float32. Expected values are the 50-digit results rounded to the nearest
double. A hyperparameter is the double nearest to the written decimal, since that is what every
implementation receives.

A case holds "arguments" (in Keras' names), "variables", "gradients" (per call, per variable; null
is a missing gradient) and "expected": the state after chosen calls. There, "average" is null if
no average is kept, and before the first update, when it has no value yet; "window" is the sum of
the gradients accumulated so far, null if there are none.
"""

import itertools
import json
import math
import random
import struct
import sys
import zlib
from pathlib import Path

from mpmath import mp, mpf

mp.dps = 50
HERE = Path(__file__).resolve().parent


# ---------------------------------------------------------------------------------------------
# The optimizer. A tensor is a flat list of mpf: shapes play no part in the arithmetic.


class Optimizer:
    """One Adadelta optimizer with its variables, averages and counters."""

    def __init__(self, arguments, mode, variables):
        self.arguments = arguments
        self.mode = mode
        self.constraints = [v["constraint"] for v in variables]
        self.x = [[mpf(value) for value in v["initial"]] for v in variables]
        self.v = [[mpf(0)] * len(x) for x in self.x]
        self.u = [[mpf(0)] * len(x) for x in self.x]
        self.average = None
        self.every = arguments.get("gradient_accumulation_steps") or 1
        self.empty_window()
        self.step = self.update = self.skipped = 0
        # Events so far: a case checks that it shows what it should.
        self.seen = set()

    def option(self, name):
        value = self.arguments.get(name)
        return None if value is None else mpf(value)

    def empty_window(self):
        self.filled = 0
        self.window = [[mpf(0)] * len(x) for x in self.x]
        self.touched = [False] * len(self.x)

    def rate(self):
        """Return the learning rate of this call. `step` counts the calls before it."""
        rate = self.arguments["learning_rate"]
        if isinstance(rate, dict):
            power = mpf(self.step) / mpf(rate["decay_steps"])
            rate = mpf(rate["initial_learning_rate"]) * mpf(rate["decay_rate"]) ** power
        return mpf(rate) / (1 + mpf(self.arguments.get("decay") or 0) * self.step)

    def call(self, gradients):
        rate = self.rate()
        self.step += 1
        if self.arguments.get("skip_nonfinite") and not all(map(finite, gradients)):
            self.skipped += 1
            return
        gradients = self.accumulate([self.unscale(g) for g in gradients])
        if gradients is None:
            self.seen.add("inside a window")
            return
        if self.arguments.get("maximize"):
            gradients = [None if g is None else [-e for e in g] for g in gradients]
        gradients = self.clip(gradients)
        for index, gradient in enumerate(gradients):
            if gradient is None:
                self.seen.add("missing")
            else:
                self.move(index, gradient, rate)
        self.update += 1
        self.keep_average()

    def unscale(self, gradient):
        if gradient is None:
            return None
        factor = self.option("loss_scale_factor")
        return [mpf(e) if factor is None else mpf(e) / factor for e in gradient]

    def accumulate(self, gradients):
        """Return the gradients to use now, or None while more are accumulated."""
        if self.every == 1:
            return gradients
        for index, gradient in enumerate(gradients):
            if gradient is not None:
                self.touched[index] = True
                self.window[index] = [
                    s + e for s, e in zip(self.window[index], gradient, strict=True)
                ]
        self.filled += 1
        if self.filled < self.every:
            return None
        window, touched = self.window, self.touched
        self.empty_window()
        return [
            [s / self.every for s in w] if t else None for w, t in zip(window, touched, strict=True)
        ]

    def clip(self, gradients):
        present = [g for g in gradients if g is not None]
        if (limit := self.option("clipvalue")) is not None:
            for element in itertools.chain(*present):
                self.seen.add("clipped" if abs(element) > limit else "not clipped")
            return [g and [max(-limit, min(limit, e)) for e in g] for g in gradients]
        if (limit := self.option("clipnorm")) is not None:
            return [g and self.shrink(g, norm(g), limit) for g in gradients]
        if (limit := self.option("global_clipnorm")) is not None:
            whole = norm(itertools.chain(*present))
            return [g and self.shrink(g, whole, limit) for g in gradients]
        return gradients

    def shrink(self, gradient, length, limit):
        self.seen.add("clipped" if length > limit else "not clipped")
        return [e * limit / max(length, limit) for e in gradient]

    def move(self, index, gradient, rate):
        """Apply decay, rule and constraint to one variable."""
        rho, epsilon = self.option("rho"), self.option("epsilon")
        strength = self.option("weight_decay") or mpf(0)
        for i, g in enumerate(gradient):
            x, v, u = self.x[index][i], self.v[index][i], self.u[index][i]
            if self.mode == "coupled":
                g = g + strength * x
            elif self.mode == "decoupled":
                x = x - rate * strength * x
            elif self.mode == "unscaled":
                x = x - strength * x
            v = rho * v + (1 - rho) * g**2
            delta = mp.sqrt(u + epsilon) / mp.sqrt(v + epsilon) * g
            u = rho * u + (1 - rho) * delta**2
            x = x - rate * delta
            if self.constraints[index] == "non_negative" and x < 0:
                self.seen.add("constrained")
                x = mpf(0)
            self.x[index][i], self.v[index][i], self.u[index][i] = x, v, u

    def keep_average(self):
        if not self.arguments.get("use_ema"):
            return
        m = self.option("ema_momentum")
        if self.average is None:
            self.average = [list(x) for x in self.x]
        else:
            self.average = [
                [m * a + (1 - m) * e for a, e in zip(average, x, strict=True)]
                for average, x in zip(self.average, self.x, strict=True)
            ]
        every = self.arguments.get("ema_overwrite_frequency")
        if every and self.update % every == 0:
            self.seen.add("overwritten")
            self.x = [list(a) for a in self.average]

    def snapshot(self):
        return {
            "call": self.step,
            "update": self.update,
            "skipped": self.skipped,
            "variables": rounded(self.x),
            "square_avg": rounded(self.v),
            "acc_delta": rounded(self.u),
            "average": self.average and rounded(self.average),
            "window": rounded(self.window) if self.every > 1 else None,
        }


def finite(gradient):
    return gradient is None or not any(isinstance(e, str) for e in gradient)


def norm(elements):
    return mp.sqrt(mp.fsum(e**2 for e in elements))


def rounded(tensors):
    return [[float(e) for e in tensor] for tensor in tensors]


# ---------------------------------------------------------------------------------------------
# Inputs. Only Random.random() is used: Python promises its sequence for a seed in all versions.


def source(name):
    return random.Random(zlib.crc32(name.encode()))


def whole(rng, low, high):
    """Return an integer from low to high, both included."""
    return low + int(rng.random() * (high - low + 1))


def single(value):
    """Return the float32 nearest to value, as a Python float."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def wide(rng, low, high):
    """Return a float32 of either sign, log-uniform from 10**low to 10**high; 1 in 10 is 0."""
    digits, exponent = whole(rng, 1000001, 9999999), whole(rng, low, high - 1)
    sign, zero = rng.random() < 0.5, rng.random() < 0.1
    return 0.0 if zero else single(float(f"{'-' if sign else ''}{digits}e{exponent - 6}"))


def short(rng, scale):
    """Return a short number: a multiple of scale / 32 up to 2 * scale, of either sign or 0."""
    return whole(rng, -64, 64) / 32 * scale


def variable(name, shape, initial, constraint=None):
    assert len(initial) == math.prod(shape)
    return {"name": name, "shape": shape, "initial": initial, "constraint": constraint}


def drawn(rng, name, shape, draw):
    return variable(name, shape, [draw(rng) for _ in range(math.prod(shape))])


def calls(rng, variables, count, draw):
    """Return gradients for `count` calls; draw(rng, n) gives one element of call n (from 1)."""
    return [[[draw(rng, n) for _ in v["initial"]] for v in variables] for n in range(1, count + 1)]


def run(arguments, mode, variables, gradients, at):
    """Return the optimizer after all calls, and its state after the calls listed in `at`."""
    optimizer, expected = Optimizer(arguments, mode, variables), []
    for number, gradient in enumerate(gradients, 1):
        optimizer.call(gradient)
        if number in at:
            expected.append(optimizer.snapshot())
    return optimizer, expected


def case(name, convention, arguments, variables, gradients, at, mode=None):
    for number in itertools.chain(
        *(v["initial"] for v in variables),
        *(g for call in gradients for g in call if g is not None),
    ):
        assert isinstance(number, str) or single(number) == number
    _, expected = run(arguments, mode, variables, gradients, at)
    made = {"name": name, "convention": convention, "arguments": arguments}
    if mode is not None:
        made["weight_decay_mode"] = mode
    return made | {"variables": variables, "gradients": gradients, "expected": expected}


# ---------------------------------------------------------------------------------------------
# trajectories.json: the rule and nothing else.


def plain(name, rate, rho, epsilon, shapes, count, low=-3, high=1, convention="paper"):
    """Return a case of the plain rule, with gradients spread from 10**low to 10**high."""
    rng = source(name)
    variables = [
        drawn(rng, label, shape, lambda r: wide(r, -2, 1)) for label, shape in shapes.items()
    ]
    gradients = calls(rng, variables, count, lambda r, n: wide(r, low, high))
    arguments = {"learning_rate": rate, "rho": rho, "epsilon": epsilon}
    at = range(1, count + 1) if count <= 12 else (1, 2, 50, 200)
    return case(name, convention, arguments, variables, gradients, at)


def ladder():
    """Return a case with one element for each order of magnitude and a constant gradient."""
    orders = [single(float(f"1e{n}")) for n in range(-6, 7)]
    variables = [variable("x", [13], [1.0] * 13)]
    arguments = {"learning_rate": 1.0, "rho": 0.95, "epsilon": 1e-6}
    gradients = [[orders]] * 50
    name = "constant gradients, one for each order of magnitude"
    return case(name, "paper", arguments, variables, gradients, (1, 2, 50))


def zeros():
    """Return a case with zeros before, between and after gradients: x rests, averages decay."""
    variables = [variable("x", [4], [1.0, -2.0, 0.5, 0.0])]
    row = [[0, 0, 0, 0], [0, 1, 0, -3], [2, 0, 0, 0], [-0.5, 0, 0, 0], [0, 0.25, 0, 0]]
    gradients = [[[float(e) for e in r]] for r in row + [[0, 0, 0, 0]] * 7]
    arguments = {"learning_rate": 0.5, "rho": 0.9, "epsilon": 1e-6}
    name = "gradients that are exactly zero"
    return case(name, "paper", arguments, variables, gradients, range(1, 13))


def missing_gradients():
    name = "missing gradients"
    rng = source(name)
    shapes = {"kernel": [2, 3], "bias": [3], "scale": []}
    variables = [drawn(rng, label, s, lambda r: wide(r, -1, 1)) for label, s in shapes.items()]
    gradients = calls(rng, variables, 12, lambda r, n: wide(r, -2, 1))
    for call, index in [(1, 1), (2, 0), (2, 2), (5, 1), (6, 1), (9, 2), (12, 0), (12, 1)]:
        gradients[call - 1][index] = None
    arguments = {"learning_rate": 0.5, "rho": 0.9, "epsilon": 1e-6}
    return case(name, "paper", arguments, variables, gradients, range(1, 13))


def trajectories():
    both = {"kernel": [2, 3], "bias": [3]}
    empty = {"none": [0], "no_rows": [0, 3], "some": [4]}
    cases = [
        plain("one step of a vector", 1.0, 0.95, 1e-6, {"x": [5]}, 1),
        plain("two steps of a matrix", 0.5, 0.9, 1e-6, {"x": [2, 3]}, 2),
        plain("a scalar", 0.5, 0.9, 1e-4, {"x": []}, 50),
        plain("learning rate 0.001", 0.001, 0.95, 1e-7, both, 200, convention="keras"),
        plain("learning rate 3 and long memory", 3.0, 0.999, 1e-2, both, 200),
        plain("rho 0, which keeps nothing", 0.5, 0.0, 1e-4, both, 50),
        plain("rho 0.5 and tiny epsilon", 3.0, 0.5, 1e-8, {"x": [4]}, 200),
        plain("empty variables beside others", 0.5, 0.9, 1e-6, empty, 2),
        plain("12 orders of magnitude", 1.0, 0.95, 1e-6, {"x": [6]}, 200, -6, 6),
        plain("12 orders and long memory", 0.5, 0.999, 1e-8, {"x": [6]}, 50, -6, 6),
        plain("12 orders and large epsilon", 3.0, 0.9, 1e-2, {"x": [2, 3]}, 50, -6, 6),
        ladder(),
        zeros(),
        missing_gradients(),
    ]
    return {"about": "The plain rule over 1 to 200 calls.", "cases": cases}


# ---------------------------------------------------------------------------------------------
# options.json and pairs.json: each option alone, and any two together.

SCHEDULE = {
    "schedule": "exponential_decay",
    "initial_learning_rate": 0.75,
    "decay_steps": 4,
    "decay_rate": 0.5,
}
# Inputs that an option needs besides its arguments.
MISSING = "missing gradients"
CONSTRAINT = "constraint"
# The options, each with the arguments that turn it on.
OPTIONS = {
    "weight_decay decoupled": {"weight_decay": 0.1},
    "weight_decay coupled": {"weight_decay": 0.1},
    "weight_decay unscaled": {"weight_decay": 0.05},
    "clipnorm": {"clipnorm": 1.5},
    "clipvalue": {"clipvalue": 0.75},
    "global_clipnorm": {"global_clipnorm": 2.0},
    "use_ema": {"use_ema": True, "ema_momentum": 0.9},
    "ema_overwrite_frequency": {
        "use_ema": True,
        "ema_momentum": 0.75,
        "ema_overwrite_frequency": 3,
    },
    "loss_scale_factor": {"loss_scale_factor": 1024.0},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 3},
    "maximize": {"maximize": True},
    "skip_nonfinite": {"skip_nonfinite": True},
    "schedule": {"learning_rate": SCHEDULE},
    CONSTRAINT: {},
    MISSING: {},
}
# At most one option of each set can be on.
EXCLUSIVE = [
    {"clipnorm", "clipvalue", "global_clipnorm"},
    {"weight_decay decoupled", "weight_decay coupled", "weight_decay unscaled"},
    {"use_ema", "ema_overwrite_frequency"},
]
CONVENTION_OF_MODE = {"decoupled": "keras", "coupled": "torch", "unscaled": "brainpy"}
# (call, variable) without a gradient. When three calls are accumulated, these are in the middle,
# at the end, throughout, and at the start.
MISSING_AT = [(1, 0), (2, 1), (6, 1), (7, 1), (8, 1), (9, 1), (10, 0)]
NONFINITE_AT = [(1, 1, 2, "NaN"), (5, 0, 1, "Inf"), (8, 0, 0, "-Inf"), (8, 0, 3, "NaN")]


def mixed(name, options, changes=None, count=12, at=None):
    """Return a case with the named options on; `changes` alters their arguments."""
    rng = source(name)
    arguments = {"learning_rate": 0.5, "rho": 0.9, "epsilon": 1e-2}
    for option in options:
        arguments |= OPTIONS[option]
    arguments |= changes or {}
    modes = [o.split()[1] for o in options if o.startswith("weight_decay")]
    mode = modes[0] if modes else None

    constraint = "non_negative" if CONSTRAINT in options else None
    # The negative element stays as it is until its variable is updated for the first time.
    variables = [
        variable("kernel", [2, 2], [0.125, 1.5, -0.25, 0.0625], constraint),
        variable("bias", [3], [0.5, -2.0, 0.03125]),
    ]
    factor = arguments.get("loss_scale_factor", 1.0)

    def element(rng, n):
        # Three calls with small gradients, then three with large ones, so that clipping by norm
        # acts on some updates only, also when three calls make one update.
        return short(rng, 0.125 if (n - 1) % 6 < 3 else 2.0) * factor

    gradients = calls(rng, variables, count, element)
    if MISSING in options:
        for call, index in MISSING_AT:
            gradients[call - 1][index] = None
    if "skip_nonfinite" in options:
        for call, index, position, value in NONFINITE_AT:
            gradient = gradients[call - 1][index]
            if gradient is None:  # use the variable that has one
                gradient = gradients[call - 1][1 - index]
            gradient[position] = value

    if at is None:
        at = range(1, count + 1)
    convention = CONVENTION_OF_MODE.get(mode, "keras")
    made = case(name, convention, arguments, variables, gradients, at, mode)
    for option in options:
        assert_acts(made, option)
    return made


def assert_acts(made, option):
    """Check that removing the option changes the result; otherwise the case shows nothing."""
    arguments, mode = dict(made["arguments"]), made.get("weight_decay_mode")
    variables, gradients = made["variables"], made["gradients"]
    full, _ = run(arguments, mode, variables, gradients, ())
    for name in OPTIONS[option]:
        del arguments[name]
    if option == "skip_nonfinite":
        assert full.skipped == 3
        return
    if option == "use_ema":
        assert full.average != full.x
        return
    if "clip" in option:
        assert {"clipped", "not clipped"} <= full.seen, made["name"]
    elif option == CONSTRAINT:
        assert "constrained" in full.seen, made["name"]
        variables = [v | {"constraint": None} for v in variables]
    elif option == "ema_overwrite_frequency":
        assert "overwritten" in full.seen, made["name"]
    elif option == "schedule":
        arguments["learning_rate"] = SCHEDULE["initial_learning_rate"]
    elif option == MISSING:
        assert "missing" in full.seen, made["name"]
        gradients = [
            [
                [0.0] * len(v["initial"]) if g is None else g
                for g, v in zip(call, variables, strict=True)
            ]
            for call in gradients
        ]
    elif option.startswith("weight_decay"):
        mode = None
    less, _ = run(arguments, mode, variables, gradients, ())
    assert rounded(less.x) != rounded(full.x), (made["name"], option)


def loose_limit():
    """Return a case whose global norm is never reached: the numbers are those without it."""
    options, loose = ["global_clipnorm"], {"global_clipnorm": 50.0}
    name = "global_clipnorm that is never reached"
    tight = mixed(name, options)
    arguments = tight["arguments"] | loose
    parts = (tight["variables"], tight["gradients"], range(1, 13))
    made = case(name, "keras", arguments, *parts)
    del arguments["global_clipnorm"]
    assert made["expected"] == run(arguments, None, *parts)[1]
    arguments["global_clipnorm"] = loose["global_clipnorm"]
    return made


def options():
    # A case of one option has its plain name; the names of variants say what is special.
    every = "gradient_accumulation_steps"
    cases = [mixed(option, [option]) for option in OPTIONS]
    cases += [
        mixed("clipnorm with a small limit", ["clipnorm"], {"clipnorm": 0.25}),
        loose_limit(),
        mixed("loss_scale_factor 3", ["loss_scale_factor"], {"loss_scale_factor": 3.0}),
        mixed("gradient_accumulation_steps 2", [every], {every: 2}),
        mixed("gradient_accumulation_steps 7", [every], {every: 7}, 24, (1, 6, 7, 8, 14, 21, 24)),
        mixed("maximize with learning rate 3", ["maximize"], {"learning_rate": 3.0}),
    ]
    return {"about": "Each option alone, acting on two variables.", "cases": cases}


def pairs():
    cases = []
    for first, second in itertools.combinations(OPTIONS, 2):
        if any({first, second} <= group for group in EXCLUSIVE):
            continue
        # With accumulation, also a call in the middle of one.
        windows = "gradient_accumulation_steps" in (first, second)
        at = (1, 6, 11, 12) if windows else (1, 6, 12)
        cases.append(mixed(f"{first} with {second}", [first, second], at=at))
    return {"about": "Every two options that can be on together.", "cases": cases}


# ---------------------------------------------------------------------------------------------
# conventions.json: the same rule with the defaults of each framework.


def defaults(rate, rho, epsilon, mode, **more):
    return {
        "learning_rate": rate,
        "rho": rho,
        "epsilon": epsilon,
        "weight_decay": None,
        "weight_decay_mode": mode,
    } | more


DEFAULTS = {
    "keras": defaults(0.001, 0.95, 1e-7, "decoupled"),
    "tf_keras": defaults(0.001, 0.95, 1e-7, "decoupled"),
    "tf1": defaults(1.0, 0.95, 1e-7, None, decay=0.0),
    "brainpy": defaults(1.0, 0.95, 1e-6, "unscaled"),
    "torch": defaults(1.0, 0.9, 1e-6, "coupled", weight_decay=0.0),
    "optax": defaults(1.0, 0.9, 1e-6, "coupled", weight_decay=0.0),
    "paper": defaults(1.0, 0.95, 1e-6, None),
}


def convention(name, key, changes=None):
    rng = source(key)  # so all cases of a framework get the same numbers
    shapes = {"kernel": [2, 2], "bias": [3]}
    variables = [drawn(rng, label, s, lambda r: wide(r, -1, 1)) for label, s in shapes.items()]
    gradients = calls(rng, variables, 24, lambda r, n: wide(r, -3, 1))
    arguments = DEFAULTS[key] | (changes or {})
    mode = arguments.pop("weight_decay_mode")
    mode = mode if arguments["weight_decay"] else None
    return case(name, key, arguments, variables, gradients, (1, 2, 12, 24), mode)


def conventions():
    cases = [convention(f"{key} defaults", key) for key in DEFAULTS]
    for key, row in DEFAULTS.items():
        if row["weight_decay_mode"]:
            cases.append(convention(f"{key} with weight decay", key, {"weight_decay": 0.01}))
    cases.append(convention("tf1 with decay of the learning rate", "tf1", {"decay": 0.1}))
    about = "The defaults of each framework; tf1 divides its rate by 1 + decay * (calls before)."
    return {"about": about, "defaults": DEFAULTS, "cases": cases}


# ---------------------------------------------------------------------------------------------
# Writing: one line for each variable, call and tensor list, so that a diff shows where it is.

FILES = {
    "trajectories": trajectories,
    "options": options,
    "pairs": pairs,
    "conventions": conventions,
}


def line(value):
    return json.dumps(value, allow_nan=False)


def block(brackets, lines, indent):
    """Return bracketed lines, comma-separated, each indented by one space more than indent."""
    pad = " " * indent
    return f"{brackets[0]}\n" + ",\n".join(f"{pad} {e}" for e in lines) + f"\n{pad}{brackets[1]}"


def case_text(made, indent):
    def field(key, value):
        if key in ("variables", "gradients"):
            return block("[]", [line(e) for e in value], indent + 1)
        if key == "expected":
            return block("[]", [state_text(e, indent + 2) for e in value], indent + 1)
        return line(value)

    return block("{}", [f"{line(k)}: {field(k, v)}" for k, v in made.items()], indent)


def state_text(state, indent):
    counters = ("call", "update", "skipped")
    first = ", ".join(f"{line(k)}: {line(state[k])}" for k in counters)
    rest = [f"{line(k)}: {line(v)}" for k, v in state.items() if k not in counters]
    return block("{}", [first, *rest], indent)


def file_text(content):
    names = [made["name"] for made in content["cases"]]
    assert len(set(names)) == len(names)
    fields = [f"{line(k)}: {line(v)}" for k, v in content.items() if k == "about"]
    if "defaults" in content:
        rows = [f"{line(k)}: {line(v)}" for k, v in content["defaults"].items()]
        fields.append(f'"defaults": {block("{}", rows, 1)}')
    fields.append(f'"cases": {block("[]", [case_text(c, 2) for c in content["cases"]], 1)}')
    return block("{}", fields, 0) + "\n"


def main(arguments):
    if arguments not in ([], ["--check"]):
        sys.exit(__doc__)
    differing = []
    for name, content in FILES.items():
        path, text = HERE / f"{name}.json", file_text(content()).encode("ascii")
        if arguments:
            if not path.exists() or path.read_bytes() != text:
                differing.append(path.name)
        else:
            path.write_bytes(text)
    if differing:
        sys.exit(f"not what the generator makes: {', '.join(differing)}")


if __name__ == "__main__":
    main(sys.argv[1:])
