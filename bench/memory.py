"""Measure the memory that a step of 100 million float32 parameters adds to them and its state.

KERAS_BACKEND=torch python bench/memory.py
"""

import keras
from keras_step import stepper
from measure import scaled

import adadelta

ELEMENTS = scaled(100_000_000)
MEGABYTES = ELEMENTS * 4 / 2**20


def main():
    mode = {"jax": "jit", "tensorflow": "graph", "torch": "eager"}[keras.config.backend()]
    stepper(adadelta.Adadelta, [(1000,)], mode)()
    step = stepper(adadelta.Adadelta, [(ELEMENTS,)], mode)
    # Making the tensors set the peak so far. So the peak is reset, and compared with what is
    # resident now.
    with open("/proc/self/status") as status:
        before = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    with open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")
    step()
    step()
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    more = (peak - before) / 1024
    print(f"\n### Memory on {keras.config.backend()}\n")
    print(
        f"A step of {ELEMENTS:,} float32 parameters ({MEGABYTES:.0f} MiB) needed at its peak "
        f"{more:.0f} MiB more than was resident before the first: {more / MEGABYTES:.2f} times "
        "the parameters."
    )


if __name__ == "__main__":
    main()
