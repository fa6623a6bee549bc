"""Show every trap: what Keras' own class does on this machine, and what ours does.

    KERAS_BACKEND=jax python tests/traps/report.py [NUMBER ...]

The last line counts ours: `N passed, N failed`. Each trap has a time limit, and one that crashes
Python counts as failed.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
# Modules in this folder have the names of others (sparse, state).
sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != TESTS / "traps"]
sys.path[:0] = [str(TESTS), str(TESTS / "python")]
sys.path.append(str(TESTS.parent / "python"))  # after PYTHONPATH, which may name another
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

TIME_LIMIT = 180  # seconds for one class and one trap, the first import of the backend included
CLASSES = ("Keras", "ours")


def work(jobs):
    """Run the jobs `[index, class]` one by one, and write a line of JSON for each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that the backends print to stderr

    import keras

    import adadelta
    import traps

    classes = {"Keras": keras.optimizers.Adadelta, "ours": adadelta.Adadelta}
    for index, name in jobs:
        outcome = traps.run(traps.TRAPS[index], classes[name])
        print(json.dumps([index, name, outcome.holds, outcome.text]), file=answers, flush=True)


def results(jobs):
    """Yield `(index, class, holds, text)` for each job, from processes that may die or hang."""
    jobs = list(jobs)
    while jobs:
        worker = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--work", json.dumps(jobs)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        lines = queue.Queue()

        def read(stream=worker.stdout, lines=lines):
            for line in stream:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        while jobs:
            try:
                line = lines.get(timeout=TIME_LIMIT)
                end = "Python died"
            except queue.Empty:
                line, end = None, f"no end after {TIME_LIMIT} seconds"
            if line is None:
                worker.kill()
                yield (*jobs.pop(0), False, end)
                break
            jobs.pop(0)
            yield tuple(json.loads(line))
        worker.wait()


def main(arguments):
    if arguments[:1] == ["--work"]:
        work(json.loads(arguments[1]))
        return 0
    import traps

    backend = os.environ["KERAS_BACKEND"]
    numbers = {int(argument) for argument in arguments}
    chosen = [
        index
        for index, entry in sorted(enumerate(traps.TRAPS), key=lambda pair: pair[1].number)
        if backend in entry.backends and (not numbers or entry.number in numbers)
    ]
    counts = {True: 0, False: 0}
    theirs = {}
    print(f"Traps of Adadelta in Keras on {backend}, and what adadelta.Adadelta does there\n")
    for index, name, holds, text in results((i, name) for i in chosen for name in CLASSES):
        if name == "Keras":
            theirs[index] = ("holds" if holds else "falls") + ": " + text
            continue
        counts[holds] += 1
        entry = traps.TRAPS[index]
        number = f"{entry.number:>2}" if entry.number else " *"
        verdict = "ok" if holds else "NOT OK"
        columns = (f"{number} {entry.words}", f"Keras {theirs[index]}", f"ours: {text}", verdict)
        print(" | ".join(columns), flush=True)
    print(f"\n{counts[True]} passed, {counts[False]} failed")
    return 1 if counts[False] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
