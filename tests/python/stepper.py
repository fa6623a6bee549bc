"""A plain float64 Adadelta step, with typical mistakes that can be switched on.

It proves the test vectors: without a fault it must agree with all of them; with any one of FAULTS,
at least one case must fail. It is written for that alone and is neither fast nor complete.
"""

import numpy as np

FAULTS = {
    # the rule
    "no epsilon below": "Δ = sqrt(u + ε) / sqrt(v) · g",
    "no epsilon above": "Δ = sqrt(u) / sqrt(v + ε) · g",
    "epsilon outside the root": "Δ = (sqrt(u) + ε) / (sqrt(v) + ε) · g",
    "rate in the accumulator": "u gathers (η Δ)² instead of Δ²",
    "new u": "Δ is computed again from the u it has just changed",
    "old v": "Δ divides by the root of v before this gradient",
    "rho swapped": "rho and 1 - rho change places",
    "no root of the ratio": "Δ = (u + ε) / (v + ε) · g",
    "accumulators from one": "v and u start at 1 instead of 0",
    # weight decay
    "coupled for decoupled": "decay enters the gradient where it should act on x",
    "decoupled for coupled": "decay acts on x where it should enter the gradient",
    "decay without the rate": "decoupled decay is not multiplied by η",
    "decay with the rate": "unscaled decay is multiplied by η",
    "decay after the rule": "x decays after its step",
    "decay by the first rate": "decoupled decay ignores the schedule",
    "decay on every call": "x decays inside accumulation windows too",
    "decay without gradient": "a variable without a gradient decays",
    "maximize after decay": "coupled decay is negated with the gradient",
    # gradients
    "clip before unscaling": "limits are applied to the scaled gradients",
    "clip after decay": "limits are applied to the gradient with coupled decay",
    "clip each micro-batch": "limits are applied before the window is averaged",
    "always at the limit": "norms below the limit are raised to it",
    "global norm by tensor": "each tensor's own norm is taken for the global one",
    "norm by global": "the global norm is taken for each tensor's own",
    "sum of the window": "the window's sum is used instead of its mean",
    "window kept": "the window is not emptied after an update",
    "none empties the window": "a missing gradient throws away what the window has gathered",
    "none at the end": "no update when the gradient is missing in a window's last call",
    "none is zero": "a missing gradient is taken for zeros",
    "mean over those present": "missing gradients do not count in the window's mean",
    # the moving average
    "average on every call": "the average moves in calls that update nothing",
    "average before the constraint": "the average takes x before its constraint",
    "average from zeros": "the average starts from zeros",
    "average from the start": "the average starts from the initial x",
    "average needs a gradient": "the average stands still without a gradient",
    "overwrite before the average": "x is overwritten by the average of the step before",
    "overwrite counts calls": "the overwrite is due by calls instead of updates",
    "momentum swapped": "m and 1 - m change places",
    # counters, schedules, constraints
    "schedule counts updates": "the learning rate is asked for the update, not for the call",
    "schedule from one": "the first call asks for the rate of step 1",
    "schedule in stairs": "the schedule moves only every decay_steps",
    "skipped is not a call": "a skipped call does not move the step",
    "skipped is an update": "a skipped call counts as an update",
    "skipped fills the window": "a skipped call counts as one of the window's calls",
    "skipped empties the window": "a skipped call throws away what the window has gathered",
    "only NaN is skipped": "infinite gradients are used",
    "constraint before the rule": "x is constrained before its step",
    "constraint without gradient": "a variable without a gradient is constrained",
    "no constraint": "the constraint is forgotten",
}


class Stepper:
    """One optimizer with its variables. Read its state from the attributes set in __init__."""

    def __init__(self, arguments, weight_decay_mode, variables, fault=None):
        assert fault is None or fault in FAULTS
        self.fault = fault
        self.arguments = arguments
        self.mode = weight_decay_mode
        if (fault, self.mode) == ("coupled for decoupled", "decoupled"):
            self.mode = "coupled"
        elif (fault, self.mode) == ("decoupled for coupled", "coupled"):
            self.mode = "decoupled"
        self.micro = arguments.get("gradient_accumulation_steps") or 1
        self.constraints = [variable["constraint"] for variable in variables]
        self.variables = [variable["initial"].copy() for variable in variables]
        start = 1.0 if fault == "accumulators from one" else 0.0
        self.square_avg = [np.full_like(x, start) for x in self.variables]
        self.acc_delta = [np.full_like(x, start) for x in self.variables]
        self.average = None  # until the first update
        self.window = self._zeros() if self.micro > 1 else None
        self.counts = [0] * len(variables)  # gradients in the window, for each variable
        self.filled = 0  # calls in the window
        self.initial = [x.copy() for x in self.variables]
        self.unconstrained = list(self.variables)
        self.step = self.update = self.skipped = 0

    def call(self, gradients):
        """Do one step with a gradient, or None, for each variable."""
        rate = self._rate()
        self.step += 1
        if self.arguments.get("skip_nonfinite") and self._nonfinite(gradients):
            self._skip()
            return
        if self.fault == "clip before unscaling":
            gradients = self._clip(gradients)
        scale = self.arguments.get("loss_scale_factor") or 1.0
        gradients = _each(lambda g: g / scale, gradients)
        if self.micro > 1:
            if self.fault == "clip each micro-batch":
                gradients = self._clip(gradients)
            gradients = self._gather(gradients)
            if gradients is None:
                self._inside_window(rate)
                return
        self._update(gradients, rate)

    def _update(self, gradients, rate):
        fault, decay = self.fault, self.arguments.get("weight_decay") or 0.0
        if fault == "none is zero":
            pairs = zip(gradients, self.variables, strict=True)
            gradients = [np.zeros_like(x) if g is None else g for g, x in pairs]
        late_sign = fault == "maximize after decay"
        sign = -1.0 if self.arguments.get("maximize") else 1.0
        if not late_sign:
            gradients = _each(lambda g: sign * g, gradients)
        early = ("clip before unscaling", "clip after decay")
        averaged = fault == "clip each micro-batch" and self.micro > 1
        if fault not in early and not averaged:
            gradients = self._clip(gradients)
        if self.mode == "coupled":
            pairs = zip(gradients, self.variables, strict=True)
            gradients = [None if g is None else g + decay * x for g, x in pairs]
        if fault == "clip after decay":
            gradients = self._clip(gradients)
        if late_sign:
            gradients = _each(lambda g: sign * g, gradients)

        self.unconstrained = list(self.variables)
        for index, gradient in enumerate(gradients):
            if gradient is not None:
                self._move(index, gradient, rate)
            elif fault == "decay without gradient":
                self.variables[index] = self._decayed(self.variables[index], rate)
            elif fault == "constraint without gradient":
                self.variables[index] = self._constrained(index, self.variables[index])
        self.update += 1
        if self.arguments.get("use_ema"):
            self._average([g is not None for g in gradients])

    def _move(self, index, gradient, rate):
        fault, x = self.fault, self.variables[index]
        if fault == "constraint before the rule":
            x = self._constrained(index, x)
        if fault != "decay after the rule":
            x = self._decayed(x, rate)
        x = x - rate * self._delta(index, gradient, rate)
        if fault == "decay after the rule":
            x = self._decayed(x, rate)
        self.unconstrained[index] = x
        if fault not in ("constraint before the rule", "no constraint"):
            x = self._constrained(index, x)
        self.variables[index] = x

    def _delta(self, index, g, rate):
        """Update the accumulators of one variable and return its Δ."""
        fault = self.fault
        epsilon = self.arguments["epsilon"]
        keep = self.arguments["rho"]
        take = 1.0 - keep
        if fault == "rho swapped":
            keep, take = take, keep
        v_old, u_old = self.square_avg[index], self.acc_delta[index]
        v = keep * v_old + take * g**2

        below, above = v + epsilon, u_old + epsilon
        if fault == "old v":
            below = v_old + epsilon
        elif fault == "no epsilon below":
            below = v
        elif fault == "no epsilon above":
            above = u_old
        delta = np.sqrt(above) / np.sqrt(below) * g
        if fault == "epsilon outside the root":
            delta = (np.sqrt(u_old) + epsilon) / (np.sqrt(v) + epsilon) * g
        elif fault == "no root of the ratio":
            delta = above / below * g

        gathered = rate * delta if fault == "rate in the accumulator" else delta
        u = keep * u_old + take * gathered**2
        if fault == "new u":
            delta = np.sqrt(u + epsilon) / np.sqrt(below) * g
        self.square_avg[index], self.acc_delta[index] = v, u
        return delta

    def _decayed(self, x, rate):
        """Return x after either decay that acts on x itself."""
        decay = self.arguments.get("weight_decay") or 0.0
        if self.fault == "decay by the first rate":
            rate = self._rate_at(0)
        if self.mode == "decoupled":
            return x - (1.0 if self.fault == "decay without the rate" else rate) * decay * x
        if self.mode == "unscaled":
            return x - (rate if self.fault == "decay with the rate" else 1.0) * decay * x
        return x

    def _constrained(self, index, x):
        return np.maximum(x, 0.0) if self.constraints[index] == "non_negative" else x

    def _rate(self):
        """Return the learning rate of the next call."""
        count = self.update if self.fault == "schedule counts updates" else self.step
        return self._rate_at(count + (self.fault == "schedule from one"))

    def _rate_at(self, count):
        rate = self.arguments["learning_rate"]
        if isinstance(rate, dict):
            power = count / rate["decay_steps"]
            if self.fault == "schedule in stairs":
                power = np.floor(power)
            return rate["initial_learning_rate"] * rate["decay_rate"] ** power
        return rate / (1.0 + (self.arguments.get("decay") or 0.0) * count)

    def _nonfinite(self, gradients):
        bad = np.isnan if self.fault == "only NaN is skipped" else lambda g: ~np.isfinite(g)
        return any(bad(g).any() for g in gradients if g is not None)

    def _skip(self):
        self.skipped += 1
        if self.fault == "skipped is not a call":
            self.step -= 1
        elif self.fault == "skipped is an update":
            self.update += 1
        elif self.fault == "skipped fills the window":
            self.filled += 1
        elif self.fault == "skipped empties the window":
            self._empty_window()
        elif self.fault == "average on every call":
            self._average_anyway()

    def _gather(self, gradients):
        """Return the mean gradient when the accumulation is complete, else None."""
        for index, g in enumerate(gradients):
            if g is not None:
                self.window[index] = self.window[index] + g
                self.counts[index] += 1
            elif self.fault == "none empties the window":
                self.window[index] = np.zeros_like(self.window[index])
                self.counts[index] = 0
        self.filled += 1
        if self.filled < self.micro:
            return None
        calls = [self.micro] * len(gradients)
        if self.fault == "sum of the window":
            calls = [1] * len(gradients)
        elif self.fault == "mean over those present":
            calls = [max(count, 1) for count in self.counts]
        present = [count > 0 for count in self.counts]
        if self.fault == "none at the end":
            present = [g is not None for g in gradients]
        means = [w / n if p else None for w, n, p in zip(self.window, calls, present, strict=True)]
        if self.fault == "window kept":
            self.filled = 0
        else:
            self._empty_window()
        return means

    def _empty_window(self):
        if self.micro > 1:
            self.window = self._zeros()
        self.counts = [0] * len(self.counts)
        self.filled = 0

    def _inside_window(self, rate):
        if self.fault == "decay on every call":
            self.variables = [self._decayed(x, rate) for x in self.variables]
        elif self.fault == "average on every call":
            self._average_anyway()

    def _clip(self, gradients):
        arguments = self.arguments
        if (limit := arguments.get("clipvalue")) is not None:
            return _each(lambda g: np.clip(g, -limit, limit), gradients)
        by_tensor = arguments.get("clipnorm")
        limit = arguments.get("global_clipnorm") if by_tensor is None else by_tensor
        if limit is None:
            return gradients
        squares = sum(np.sum(g**2) for g in gradients if g is not None)
        one_norm = by_tensor is None
        if self.fault in ("global norm by tensor", "norm by global"):
            one_norm = self.fault == "norm by global"

        def shrink(g):
            norm = np.sqrt(squares if one_norm else np.sum(g**2))
            if self.fault == "always at the limit":
                return g * limit / norm
            return g * limit / max(norm, limit)

        return _each(shrink, gradients)

    def _average(self, present):
        """Update the average, and overwrite x with it when due."""
        every = self.arguments.get("ema_overwrite_frequency")
        count = self.step if self.fault == "overwrite counts calls" else self.update
        due = bool(every) and count % every == 0
        before = self.average
        self._move_average(present)
        if due and self.fault == "overwrite before the average":
            self.variables = [a.copy() for a in before or self.average]
        elif due:
            self.variables = [a.copy() for a in self.average]

    def _move_average(self, present):
        keep = self.arguments["ema_momentum"]
        take = 1.0 - keep
        if self.fault == "momentum swapped":
            keep, take = take, keep
        values = self.variables
        if self.fault == "average before the constraint":
            values = self.unconstrained
        old = self.average
        if old is None and self.fault == "average from zeros":
            old = self._zeros()
        elif old is None and self.fault == "average from the start":
            old = self.initial
        elif old is None:
            self.average = [x.copy() for x in values]
            return
        self.average = [keep * a + take * x for a, x in zip(old, values, strict=True)]
        if self.fault == "average needs a gradient":
            rows = zip(self.average, old, present, strict=True)
            self.average = [new if p else a for new, a, p in rows]

    def _average_anyway(self):
        if self.arguments.get("use_ema"):
            self._move_average([True] * len(self.variables))

    def _zeros(self):
        return [np.zeros_like(x) for x in self.variables]


def _each(function, gradients):
    return [None if g is None else function(g) for g in gradients]
