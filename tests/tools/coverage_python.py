"""How much of python/adadelta the tests run: coverage_python.py [SUITE ...]

Run the named suites of tests/run.py, or all that count, with every Python process measured: also
the one inside R, those that tests start, and pytest's own. Then combine the results, list the
lines that no test ran, and fail below LEAST percent.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SUITES = [
    "r", "python:jax", "python:tensorflow", "python:torch", "kernels", "frameworks", "rpy2",
]  # fmt: skip
LEAST = 95

# What can't be measured, and why. Nothing else is left out.
LEFT_OUT = {
    "_kernels/fused.py": "numba compiles it, and machine code can't be traced; tests/kernels holds "
    "every option of it to the rule",
    "_kernels/xla_handler.py": "numba compiles it, and XLA calls it without Python",
    "_kernels/triton_step.py": "Triton compiles it, or rewrites it for its interpreter",
}
# Lines for the type checker only.
LEFT_OUT_LINES = [r"if TYPE_CHECKING:", r"raise NotImplementedError"]

SETTINGS = """
[run]
source_pkgs = adadelta
data_file = {data}
parallel = true
[paths]
core =
    {core}
    */adadelta
[report]
show_missing = true
skip_covered = true
omit =
{omit}
exclude_also =
{exclude}
"""


def main(suites: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="adadelta-coverage-") as scratch:
        core = ROOT / "python" / "adadelta"
        settings = Path(scratch, "coveragerc")
        settings.write_text(
            SETTINGS.format(
                data=Path(scratch, "data"),
                core=core,
                omit="".join(f"    {core / name}\n" for name in LEFT_OUT),
                exclude="".join(f"    {line}\n" for line in LEFT_OUT_LINES),
            )
        )
        measured = {
            **os.environ,
            # With this variable, coverage starts by itself in every Python process.
            "COVERAGE_PROCESS_START": str(settings),
            "PYTEST_ADDOPTS": "-p coverage_of_workers",
            "PYTHONPATH": str(Path(__file__).parent),
        }
        command = [sys.executable, "tests/run.py", *(suites or SUITES)]
        tests = subprocess.run(command, cwd=ROOT, env=measured)
        coverage = [sys.executable, "-m", "coverage"]
        options = [f"--rcfile={settings}"]
        subprocess.run([*coverage, "combine", "--quiet", *options], cwd=ROOT, check=True)
        report = subprocess.run([*coverage, "report", *options, f"--fail-under={LEAST}"], cwd=ROOT)
    print("\nleft out:")
    for name, reason in LEFT_OUT.items():
        print(f"  {name}: {reason}")
    return tests.returncode or report.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
