"""The optimizer's options by name, and the pairs of them that go together."""

import itertools

import keras

import adadelta

# Each option by what it passes to the optimizer. Those that pass nothing act through the variables
# or the gradients, which a test makes accordingly; "schedule" acts through `optimizer_of`.
OPTIONS = {
    "decoupled decay": {"weight_decay": 0.0625},
    "coupled decay": {"weight_decay": 0.0625, "decoupled_weight_decay": False},
    "clipnorm": {"clipnorm": 1.5},
    "clipvalue": {"clipvalue": 0.75},
    "global_clipnorm": {"global_clipnorm": 2.0},
    "average": {"use_ema": True, "ema_momentum": 0.75},
    "overwriting": {"use_ema": True, "ema_momentum": 0.75, "ema_overwrite_frequency": 5},
    "loss scale": {"loss_scale_factor": 8.0},
    "maximize": {"maximize": True},
    "skipping": {"skip_nonfinite": True},
    "constraint": {},
    "schedule": {},
    "missing gradients": {},
}
ALTERNATIVES = (
    ("decoupled decay", "coupled decay"),
    ("clipnorm", "clipvalue", "global_clipnorm"),
    ("average", "overwriting"),
)


def pairs(options, alternatives):
    """Every pair of options, but for those of which only one can be on."""
    return [
        pair
        for pair in itertools.combinations(options, 2)
        if not any(set(pair) <= set(group) for group in alternatives)
    ]


def rows(options, alternatives):
    """Few runs with many options on, in which every pair is on together somewhere.

    For the modes in which all pairs one by one are slow. The alternatives come first in each.
    """
    others = sorted(set(options).difference(*alternatives))
    choices = [(*choice, *others) for choice in itertools.product(*alternatives)]
    missing = {frozenset(pair) for pair in pairs(options, alternatives)}
    chosen = []
    while missing:
        chosen.append(max(choices, key=lambda row: len(missing & pairs_in(row))))
        missing -= pairs_in(chosen[-1])
    return chosen


def pairs_in(row):
    return {frozenset(pair) for pair in itertools.combinations(row, 2)}


def name(options):
    return "-".join(options).replace(" ", "-")


def optimizer_of(options, table, boundaries, **arguments):
    """The optimizer with these options of a table; a schedule halves the rate at `boundaries`."""
    for option in options:
        arguments.update(table[option])
    rate = 0.5
    if "schedule" in options:
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, [1.0, 0.5, 0.25])
    return adadelta.Adadelta(learning_rate=rate, epsilon=1e-4, **arguments)
