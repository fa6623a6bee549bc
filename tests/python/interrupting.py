"""An interrupt at any line of a step."""

import signal
import sys


def at_every_line(step, check, stride=1):
    """Call `step` again and again, with SIGINT at one line further each time, and `check` after it.

    Returns how often it was interrupted.
    """
    before = sys.gettrace()
    place = hits = 0
    fired = True
    while fired:
        fired, lines = False, 0

        def trace(frame, event, argument, place=place):
            nonlocal fired, lines
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
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        check()
        place += stride
    return hits
