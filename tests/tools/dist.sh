#!/usr/bin/env bash
# Builds what goes to PyPI and to CRAN, in dist/, and checks it as users get it: the wheel in an
# empty environment, the R package by R CMD check. Its tools are installed in a temporary
# environment.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
dist=$root/dist
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH

rm -rf "$dist"
# A copy, since building leaves files behind, with links replaced by files.
cp -rL "$root/python" "$work/source"
find "$work/source" -name __pycache__ -type d -prune -exec rm -rf {} +

python -m venv "$work/tools"
"$work/tools/bin/python" -m pip install -q build twine
# The wheel is built from the source distribution, which shows that nothing is missing there.
if ! "$work/tools/bin/python" -m build --outdir "$dist" "$work/source" >"$work/log" 2>&1; then
  tail -n 40 "$work/log" >&2
  exit 1
fi
"$work/tools/bin/python" -m twine check --strict "$dist"/*

wheel=$(echo "$dist"/adadelta-*.whl)
echo "Installing $wheel[jax] into an empty environment"
python -m venv "$work/empty"
"$work/empty/bin/python" -m pip install -q "$wheel[jax]"
cd "$work"
KERAS_BACKEND=jax "$work/empty/bin/python" -c '
import adadelta, keras

x = keras.Variable([1.0, 2.0])
optimizer = adadelta.Adadelta(learning_rate=1.0)
optimizer.apply([keras.ops.array([1.0, -1.0])], [x])
assert x.numpy()[0] < 1 and x.numpy()[1] > 2, x
print(f"adadelta {adadelta.__version__} in {adadelta.__file__} makes steps")
print(adadelta.kernel_info(optimizer))
'
ADADELTA_DIST=$dist python "$root/tests/run.py" check
ls -l "$dist"
