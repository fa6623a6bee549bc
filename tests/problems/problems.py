"""The problems of problems.json as Python functions. problems.R is the same in R."""

import json
from pathlib import Path

import numpy as np
from scipy.special import digamma, gammaln

FILE = Path(__file__).with_name("problems.json")


def _log_gamma(x):
    if not np.iscomplexobj(x):
        return gammaln(x)
    return gammaln(x.real) + 1j * x.imag * digamma(x.real)


_NAMES = {
    name: getattr(np, name) for name in ("exp", "log", "sqrt", "sin", "cos", "pi", "sum", "cumsum")
}
_NAMES |= {
    "atan": np.arctan,
    "odd": lambda x: x[0::2],
    "even": lambda x: x[1::2],
    "negative": lambda x: float(np.real(x) < 0),
    "log_gamma": _log_gamma,
}


class Problem:
    """A function of a vector, its gradient, and a starting point.

    `best` is the lowest value that BFGS, CG, L-BFGS-B and Nelder-Mead of SciPy reach from it,
    the first three with exact gradients.
    """

    def __init__(self, name, source, start, best, value, data=None):
        self.name, self.start, self.best = name, np.array(start, dtype=float), best
        self._formula = compile(value, name, "eval")
        self._names = _NAMES | {
            key: np.array(values, float) for key, values in (data or {}).items()
        }

    def _at(self, x):
        numbered = {f"x{i}": element for i, element in enumerate(x, 1)}
        with np.errstate(all="ignore"):
            return eval(self._formula, {}, self._names | numbered | {"x": x})

    def value(self, x):
        return float(self._at(x))

    def slope(self, x):
        # The imaginary part of the value at a complex point is exact, unlike a difference:
        # Squire and Trapp 1998, doi:10.1137/S003614459631241X.
        return np.array([self._at(x + 1e-100j * unit).imag * 1e100 for unit in np.eye(len(x))])


def read_problems():
    return [Problem(**problem) for problem in json.loads(FILE.read_text("utf-8"))]
