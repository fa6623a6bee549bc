"""Run functions in several torch processes that communicate, and return their results.

Importing torch takes seconds, so the processes wait for more functions until the tests end.
"""

import functools
import multiprocessing
import os
import tempfile
import time
import traceback
from datetime import timedelta
from multiprocessing.connection import wait

# The time limit of a function, and the time that the others get to end after one has failed.
SECONDS, GRACE = 180, 10


def run(count, function, *arguments):
    """Return what a function returns in each of `count` processes.

    Args:
        count: The number of processes. Each is a rank of torch's default process group.
        function: A function of a module, called as `function(rank, *arguments)`.
        arguments: Anything that can be pickled; so must the function's result.

    """
    return _processes(count).run(function, arguments)


@functools.cache
def _processes(count):
    return Processes(count)


class Processes:
    """A number of processes, which start when they are first needed."""

    def __init__(self, count):
        self.count = count
        self.started, self.connections = [], []

    def run(self, function, arguments):
        if not self.started:
            self.start()
        for connection in self.connections:
            connection.send((function, arguments))
        results, errors = {}, {}
        end = time.monotonic() + SECONDS
        while len(results) + len(errors) < self.count and time.monotonic() < end:
            for connection in wait(self._awaited(results, errors), timeout=1):
                rank = self.connections.index(connection)
                try:
                    succeeded, value = connection.recv()
                except EOFError:
                    succeeded, value = False, "it ended"
                (results if succeeded else errors)[rank] = value
                if not succeeded:
                    end = min(end, time.monotonic() + GRACE)
        if len(results) < self.count:
            self.end()
            texts = [f"process {rank}:\n{text}" for rank, text in sorted(errors.items())]
            waiting = sorted(set(range(self.count)) - set(results) - set(errors))
            raise AssertionError("\n".join([*texts, f"processes that had no result: {waiting}"]))
        return [results[rank] for rank in range(self.count)]

    def _awaited(self, results, errors):
        return [
            connection
            for rank, connection in enumerate(self.connections)
            if rank not in results and rank not in errors
        ]

    def start(self):
        context = multiprocessing.get_context("spawn")
        folder = tempfile.mkdtemp(prefix="adadelta-processes-")
        for rank in range(self.count):
            ours, theirs = context.Pipe()
            # Daemons end with the tests.
            process = context.Process(
                target=_serve, args=(rank, self.count, f"{folder}/store", theirs), daemon=True
            )
            process.start()
            theirs.close()
            self.started.append(process)
            self.connections.append(ours)

    def end(self):
        for process in self.started:
            process.kill()
            process.join()
        self.started, self.connections = [], []


def _serve(rank, count, store, connection):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=SECONDS),
    )
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = True, function(rank, *arguments)
        except BaseException:
            answer = False, traceback.format_exc()
        connection.send(answer)
