"""If a kernel can't be compiled or loaded, torch makes the plain step, without an error."""

import subprocess
import sys

import pytest

START = """
import torch
from adadelta.torch import Adadelta

def stepped(dtype=torch.float32, steps=2, **options):
    param = torch.nn.Parameter(torch.linspace(-1, 1, 1000).to(dtype))
    optimizer = Adadelta([param], lr=0.5, **options)
    for _ in range(steps):
        param.grad = torch.linspace(1, 2, 1000).to(dtype)
        optimizer.step()
    return param

"""


def run(code):
    subprocess.run([sys.executable, "-c", START + code], check=True, timeout=120)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of the address space is Linux's")
@pytest.mark.parametrize(
    ("loaded", "megabytes"), [("", 3), ("from adadelta._kernels import cpu", 3)]
)
def test_with_little_address_space_left(loaded, megabytes):
    run(
        f"""
import resource
expected = stepped(fused=False)
{loaded}
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + {megabytes} * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
torch.testing.assert_close(stepped(), expected)
"""
    )


def test_when_the_kernel_of_another_dtype_can_not_be_compiled():
    run(
        """
import pytest
from adadelta._kernels import compiled, compiler, cache

stepped(fused=True)
# No file is read, and nothing can be compiled from here on.
cache.folder = lambda: None

def object_codes(functions):
    raise MemoryError("no room")

compiler.object_codes = object_codes
stepped(fused=True)
for dtype in (torch.float64, torch.bfloat16, torch.float16):
    torch.testing.assert_close(stepped(dtype), stepped(dtype, fused=False))
    with pytest.raises(RuntimeError, match="no room"):
        stepped(dtype, fused=True)
"""
    )
