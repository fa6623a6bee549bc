"""`adadelta.torch` works in an environment with only what its extra installs."""

import subprocess
import sys
from pathlib import Path

import adadelta

ROOT = Path(adadelta.__file__).resolve().parents[1]

# Blocked before anything is imported.
CODE = """
import sys
sys.modules.update(dict.fromkeys(["keras", "h5py", "rich", "jax", "tensorflow", "optax", "scipy"]))
import adadelta, adadelta.torch, torch

model = torch.nn.Linear(2, 1)
optimizer = adadelta.torch.Adadelta(model.parameters(), lr=1.0)
model(torch.ones(3, 2)).sum().backward()
optimizer.step()
adadelta.save_state(optimizer, sys.argv[1])
again = adadelta.torch.Adadelta(model.parameters(), lr=1.0)
adadelta.load_state(again, sys.argv[1])
one, two = (adadelta.export_state(it).parameters for it in (optimizer, again))
print(adadelta.kernel_info(optimizer)[0]["engine"], all(
    (one[name][slot] == two[name][slot]).all() for name in one for slot in one[name]
), len(one))
"""


def test_it_steps_saves_and_loads_without_keras(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", CODE, tmp_path / "state"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["cpu", "True", "2"]
