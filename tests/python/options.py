"""The optimizer's options by name, and the pairs of them that can be combined."""

import itertools

import keras

import adadelta

# The arguments that each option passes to the optimizer. Options without arguments act through the
# variables or gradients, which the tests make accordingly; "schedule" acts in `optimizer_of`.
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
    """Return every pair of options that can be used together."""
    return [
        pair
        for pair in itertools.combinations(options, 2)
        if not any(set(pair) <= set(group) for group in alternatives)
    ]


def rows(options, alternatives):
    """Return a few runs with many options on, so that every pair is on together in some run.

    For modes in which testing each pair alone is slow. The alternatives come first in each run.
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
    """Return the optimizer with these options; a schedule halves the rate at `boundaries`."""
    for option in options:
        arguments.update(table[option])
    rate = 0.5
    if "schedule" in options:
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, [1.0, 0.5, 0.25])
    return adadelta.Adadelta(learning_rate=rate, epsilon=1e-4, **arguments)
