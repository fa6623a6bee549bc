"""Run test suites and add up their results.

    tests/run.py [STACK/]SUITE[:BACKEND][+[STACK/]SUITE...] ...

Suites with a `+` between them run at the same time: most take one processor only. The output of
the first is shown as it appears, that of the others when they end.

Suites:

    r        tests/testthat on the installed R package
    python   tests/python, on the Keras backend named (jax, tensorflow, torch)
    kernels  tests/kernels, the kernels compared with the rule
    frameworks
             tests/frameworks, the front ends of other frameworks compared with their hosts
    devices  tests/devices, several devices and processes compared with one; devices-fast leaves out
             what is marked slow
    rpy2     tests/rpy2, R and Python in one process
    check    R CMD build and R CMD check --as-cran, which must say "Status: OK"; the package is
             then copied to the folder $ADADELTA_DIST, where that is set
    demo     demo(diamonds), whose checks are counted; its pictures go to
             $ADADELTA_DEMO_OUTPUT, or demo-output/ when that is not set

A stack is one of those that environments/setup.sh prepares, `stock` when none
is named; `here` means the R and Python that the caller's own variables choose.

The last line counts the tests: `N passed, N failed`, and skipped ones if any.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any
from xml.etree import ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
TAIL = 40  # lines of output shown again for a suite that crashed
TIME_LIMIT = float(os.environ.get("ADADELTA_TEST_TIME_LIMIT", "3600"))  # seconds per suite

CHECK_SETTINGS = {
    # Both query servers that have nothing to say about this package.
    "_R_CHECK_CRAN_INCOMING_": "false",
    "_R_CHECK_SYSTEM_CLOCK_": "false",
    # Python's caches would be reported as left-over files.
    "PYTHONDONTWRITEBYTECODE": "1",
}


# Where the output of each thread goes.
_output = threading.local()


def say(*values: object, **options: Any) -> None:
    """Print in the order of the thread's own suite."""
    print(*values, file=getattr(_output, "stream", sys.stdout), **options)


@dataclasses.dataclass
class Result:
    """What one suite found: counts, reasons for skips, and time."""

    passed: int = 0
    failed: int = 0
    skips: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    seconds: float = 0.0

    @property
    def skipped(self) -> int:
        return sum(self.skips.values())

    def count(self, outcome: str, reason: str = "") -> None:
        if outcome == "passed":
            self.passed += 1
        elif outcome == "skipped":
            self.skips[reason or "no reason given"] += 1
        else:
            self.failed += 1


@dataclasses.dataclass
class Run:
    """A finished command."""

    status: int
    lines: list[str]
    timed_out: bool

    def show_tail(self, complaint: str) -> None:
        if self.timed_out:
            complaint += f", stopped after {TIME_LIMIT:.0f} seconds"
        say(f"\n{complaint} (exit status {self.status}). The end of its output:")
        for line in self.lines[-TAIL:]:
            say("  | " + line)


class Suite:
    """One suite in one environment."""

    def __init__(self, name: str) -> None:
        self.name = name
        stack, _, rest = name.rpartition("/")
        self.stack = stack or "stock"
        self.kind, _, self.backend = rest.partition(":")
        if self.kind not in KINDS:
            raise SystemExit(f"unknown suite {name!r}; there are: {', '.join(KINDS)}")
        if self.stack not in ("stock", "latest", "here"):
            raise SystemExit(f"unknown stack in {name!r}; there are: stock, latest, here")

    def run(self) -> Result:
        say(f"\n===== {self.name} =====", flush=True)
        start = time.monotonic()
        result = Result()
        with tempfile.TemporaryDirectory(prefix="adadelta-tests-") as scratch:
            KINDS[self.kind](self, result, pathlib.Path(scratch))
        result.seconds = time.monotonic() - start
        return result

    def command(self, *command: str, cwd: pathlib.Path = ROOT, **settings: str) -> Run:
        """Run a command in the suite's environment, showing its output as it appears."""
        if self.stack != "here":
            command = (str(ROOT / "environments" / "use.sh"), self.stack, *command)
        if self.backend:
            settings["KERAS_BACKEND"] = self.backend
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # so that the time limit ends its children too
        )
        timer = threading.Timer(TIME_LIMIT, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        lines = []
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
                say(line, end="", flush=True)
            status = process.wait()
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            timed_out = timer.finished.is_set()
            timer.cancel()
        return Run(status, lines, timed_out)


def has_tests(result: Result, folder: str, pattern: str) -> bool:
    """Whether there are tests to run: a suite that lost its tests has failed."""
    if any((ROOT / folder).rglob(pattern)):
        return True
    say(f"There are no tests ({pattern}) in {folder}.")
    result.failed += 1
    return False


def settle(result: Result, run: Run, reported: bool) -> None:
    """Count a crash: there is no report, or the report does not explain the exit status."""
    if not reported:
        complaint = "The suite crashed before it could report"
    elif result.passed + result.failed + result.skipped == 0:
        complaint = "The suite ran no tests"
    elif run.status != 0 and not (run.status == 1 and result.failed):
        complaint = "The suite did not end as its report says"
    else:
        return
    result.failed += 1
    run.show_tail(complaint)


def run_r(suite: Suite, result: Result, scratch: pathlib.Path) -> None:
    """Run the R tests on the installed package."""
    if not has_tests(result, "tests/testthat", "test*.[Rr]"):
        return
    report = scratch / "report.jsonl"
    run = suite.command("Rscript", "tests/tools/testthat.R", str(report), NOT_CRAN="true")
    if report.exists():
        for line in report.read_text("utf-8").splitlines():
            test = json.loads(line)
            result.count(test["outcome"], test["reason"])
    settle(result, run, report.exists())


# The groups in the conftest.py of each folder: some frameworks can't share a process with others.
GROUPS = {
    "frameworks": ("torch", "tf_keras", "brainpy", "optax", "scipy", "all"),
    "devices": ("jax", "torch", "tensorflow"),
}
NOTHING_COLLECTED = 5


def run_pytest(suite: Suite, result: Result, scratch: pathlib.Path) -> None:
    """Run the Python tests of one folder on the core in python/."""
    name, _, part = suite.kind.partition("-")
    folder = f"tests/{name}"
    if not has_tests(result, folder, "test_*.py"):
        return
    path = os.pathsep.join(filter(None, [str(ROOT / "python"), os.environ.get("PYTHONPATH")]))
    command = ["python", "-m", "pytest", folder, "--rootdir=."]
    command += ["--continue-on-collection-errors", "--durations=10", "--durations-min=10"]
    if part == "fast":
        command += ["-m", "not slow"]
    if name != "rpy2":
        # Two at a time take 0.6 of the time on two cores. Not rpy2: R can start once in a process.
        command += ["--numprocesses=2"]
    if (ROOT / "python/pyproject.toml").exists():
        command.append("--config-file=python/pyproject.toml")
    for group in GROUPS.get(name, ("",)):
        report = scratch / f"report{group}.xml"
        run = suite.command(
            *command, f"--junitxml={report}", PYTHONPATH=path, ADADELTA_TEST_GROUP=group
        )
        if group and run.status == NOTHING_COLLECTED:
            # This environment lacks the framework, as pytest's header says.
            continue
        own = Result()
        try:
            cases = list(ElementTree.parse(report).iter("testcase"))
        except (OSError, ElementTree.ParseError):
            settle(own, run, reported=False)
            cases = []
        else:
            for case in cases:
                if case.find("failure") is not None or case.find("error") is not None:
                    own.count("failed")
                elif (skip := case.find("skipped")) is not None:
                    own.count("skipped", skip.get("message", ""))
                else:
                    own.count("passed")
            settle(own, run, reported=True)
        result.passed += own.passed
        result.failed += own.failed
        result.skips += own.skips


def run_check(suite: Suite, result: Result, scratch: pathlib.Path) -> None:
    """Run R CMD build and R CMD check as CRAN does."""
    build = suite.command("R", "CMD", "build", str(ROOT), cwd=scratch, **CHECK_SETTINGS)
    tarballs = list(scratch.glob("*.tar.gz"))
    if build.status != 0 or len(tarballs) != 1:
        say("R CMD build made no package.")
        result.failed += 1
        return
    check = suite.command(
        "R", "CMD", "check", "--as-cran", "--no-manual", tarballs[0].name,
        cwd=scratch, **CHECK_SETTINGS,
    )  # fmt: skip
    if check.status == 0 and "Status: OK" in check.lines:
        result.passed += 1
        if kept := os.environ.get("ADADELTA_DIST"):
            shutil.copy(tarballs[0], kept)
        return
    result.failed += 1
    say(f"\nR CMD check must end with 'Status: OK' (exit status {check.status}). What it found:")
    for section in re.split(r"^(?=\* )", "\n".join(check.lines), flags=re.MULTILINE):
        if re.search(r"\b(NOTE|WARNING|ERROR)$|^Status:", section, re.MULTILINE):
            say(section.rstrip())
    logs = list(scratch.rglob("*.Rout.fail"))
    if any("00install.out" in line for line in check.lines):
        logs += scratch.glob("*.Rcheck/00install.out")
    for log in logs:
        say(f"\n--- {log.relative_to(scratch)}")
        say(log.read_text("utf-8", "replace").rstrip())


def run_demo(suite: Suite, result: Result, scratch: pathlib.Path) -> None:
    """Run the demo, which prints `check: ok ...` or `check: FAILED ...` for each of its checks."""
    code = 'demo(diamonds, package = "adadelta", ask = FALSE)'
    pictures = pathlib.Path(os.environ.get("ADADELTA_DEMO_OUTPUT") or ROOT / "demo-output")
    pictures.mkdir(parents=True, exist_ok=True)
    run = suite.command("Rscript", "-e", code, ADADELTA_DEMO_OUTPUT=str(pictures.resolve()))
    say(f"\nPictures are in {pictures}.")
    for line in run.lines:
        if line.startswith("check: ok "):
            result.count("passed")
        elif line.startswith("check: FAILED "):
            result.count("failed")
    settle(result, run, reported=True)


KINDS = {
    "r": run_r,
    "python": run_pytest,
    "kernels": run_pytest,
    "frameworks": run_pytest,
    "devices": run_pytest,
    "devices-fast": run_pytest,
    "rpy2": run_pytest,
    "check": run_check,
    "demo": run_demo,
}


def run_together(suites: list[Suite]) -> list[Result]:
    """Run suites at the same time."""
    first, *others = suites

    def run_quietly(suite: Suite) -> tuple[Result, str]:
        _output.stream = io.StringIO()
        return suite.run(), _output.stream.getvalue()

    with concurrent.futures.ThreadPoolExecutor(len(suites)) as threads:
        waiting = [threads.submit(run_quietly, suite) for suite in others]
        results = [first.run()]
        for future in waiting:
            result, text = future.result()
            say(text, flush=True)
            results.append(result)
    return results


def main(names: list[str]) -> int:
    if not names or {"-h", "--help"} & set(names):
        say(__doc__)
        return 2
    groups = [[Suite(name) for name in together.split("+")] for together in names]
    suites = [suite for group in groups for suite in group]
    results = [result for group in groups for result in run_together(group)]

    width = max(len(suite.name) for suite in suites)
    say(f"\n{'suite':{width}}  passed  failed  skipped  seconds")
    for suite, one in zip(suites, results, strict=True):
        numbers = f"{one.passed:6d}  {one.failed:6d}  {one.skipped:7d}  {one.seconds:7.0f}"
        say(f"{suite.name:{width}}  {numbers}")
    if any(one.skips for one in results):
        say("\nskipped:")
    for suite, one in zip(suites, results, strict=True):
        for reason, count in one.skips.most_common():
            say(f"{count:6d}  {suite.name}: {' '.join(reason.split())}")

    passed, failed, skipped = (
        sum(getattr(one, what) for one in results) for what in ("passed", "failed", "skipped")
    )
    say()
    say(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
