"""An interrupt at any line of a step."""

import os
import signal
import sys

import pytest

import adadelta

OURS = os.path.dirname(adadelta.__file__)


@pytest.fixture(autouse=True)
def interruptible():
    """Let SIGINT raise KeyboardInterrupt, which a shell disables in background processes.

    For the tests of a module that imports this fixture.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def after(updates):
    """Return a weight that began as 1, and its `acc_delta`, after so many updates.

    The learning rate is 1, `rho` 0, epsilon 1 and the gradient 1, so that each update moves the
    weight visibly, by about 1.
    """
    weight, change = 1.0, 0.0
    for _ in range(updates):
        change = ((change**2 + 1) / 2) ** 0.5
        weight -= change
    return weight, change**2


def at_every_line(step, check, stride=1):
    """Call `step` again and again, sending SIGINT one of our lines later each time.

    `check` is called after each call. Returns how often the step was interrupted.
    """
    before = sys.gettrace()
    torch = sys.modules.get("torch")
    has_grad = torch and torch.is_grad_enabled()
    place = hits = 0
    fired = True
    while fired:
        fired, lines = False, 0

        def trace(frame, event, argument, place=place):
            nonlocal fired, lines
            if not frame.f_code.co_filename.startswith(OURS):
                return None
            if event == "line":
                lines += 1
                if lines > place and not fired:
                    fired = True
                    signal.raise_signal(signal.SIGINT)
            return trace

        try:
            sys.settrace(trace)
            step()
        except KeyboardInterrupt:
            hits += 1
        finally:
            sys.settrace(before)
            if torch:
                # Python can be interrupted between the last line of a `with` block and the exit of
                # its context; torch's gradient mode then stays as it was in the block.
                torch.set_grad_enabled(has_grad)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        check()
        place += stride
    return hits
