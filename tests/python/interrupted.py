"""A process that is killed, or fails, in the middle of a save. Run by test_state_file.py.

    python interrupted.py state DIRECTORY     a state's file, at every stage of saving it
    python interrupted.py model DIRECTORY     a Keras model, likewise
    python interrupted.py endless DIRECTORY   saves until it is killed

Each stage is a function that the save calls. Before and after each, the process forks, and the
fork kills itself. One line is printed for every stage: its name and the content of the file.
"""

import contextlib
import os
import resource
import signal
import sys
import zipfile
from pathlib import Path

import numpy as np

from adadelta.state import OptimizerState, read_state, save_model, write_state

STAGES = {
    "write": (os, "chmod"),
    "write_bytes": (Path, "write_bytes"),
    "flush": (os, "fsync"),
    "replace": (os, "replace"),
    "zip": (zipfile.ZipFile, "writestr"),
    "zip closed": (zipfile.ZipFile, "close"),
}


def state_of(number, size=1000):
    values = np.full(size, number, "float32")
    return OptimizerState(
        step=number, update=number, parameters={"x": {"square_avg": values, "acc_delta": values}}
    )


class States:
    path = "state.safetensors"
    stages = ("write", "write_bytes", "flush", "replace")

    def save(self, number, path):
        write_state(state_of(number), path)

    def number_in(self, path):
        state = read_state(path)
        assert state == state_of(state.step)
        return state.step


class Models:
    path = "model.keras"
    stages = ("write", "flush", "replace", "zip", "zip closed")

    def __init__(self):
        os.environ["KERAS_BACKEND"] = "numpy"  # has no threads, so it can fork
        import keras

        self.keras = keras
        self.model = keras.Sequential([keras.layers.Input((30,)), keras.layers.Dense(30)])

    def save(self, number, path):
        for variable in self.model.weights:
            variable.assign(np.full(variable.shape, number))
        save_model(self.model, path)

    def number_in(self, path):
        values = [w.reshape(-1) for w in self.keras.saving.load_model(path).get_weights()]
        (number,) = np.unique(np.concatenate(values))
        return int(number)


def in_fork(action):
    """Run a function in a forked process; return the signal that killed it, or its exit status."""
    child = os.fork()
    if not child:
        try:
            action()
        except BaseException as error:
            print(f"  {type(error).__name__}: {error}", flush=True)
            os._exit(3)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def patched(stage, when, do):
    owner, name = STAGES[stage]
    original = getattr(owner, name)

    def function(*arguments, **named):
        if when == "before":
            do()
        result = original(*arguments, **named)
        if when == "after":
            do()
        return result

    setattr(owner, name, function)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt():
    raise KeyboardInterrupt


def fill_the_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


def main(kind, directory):
    kind, directory = {"state": States, "model": Models}[kind](), Path(directory)
    path = directory / kind.path
    ends = [(stage, when, kill) for stage in kind.stages for when in ("before", "after")]
    ends += [(stage, "before", interrupt) for stage in kind.stages]
    ends += [(None, "full disk", fill_the_disk)]
    for stage, when, end in ends:
        kind.save(1, path)

        def save(stage=stage, when=when, end=end):
            if stage is None:
                end()
            else:
                patched(stage, when, end)
            kind.save(2, path)

        result = in_fork(save)
        left, number = len(os.listdir(directory)) - 1, kind.number_in(path)
        kind.save(3, path)
        later = len(os.listdir(directory)) - 1
        print(f"{stage}/{when}/{end.__name__}/{result}/{number}/{left}/{later}")


def endless(directory):
    number = 0
    while True:
        number += 1
        write_state(state_of(number, 300_000), Path(directory, "state.safetensors"))
        if number == 2:
            print("ready", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        endless(sys.argv[2]) if sys.argv[1] == "endless" else main(*sys.argv[1:])
