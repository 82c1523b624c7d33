"""Execute stored notebooks with kernel matrices that are wrong in the twelfth digit, and compare their outputs.

Another processor adds in another order. What a chapter prints must not depend on that: no ties, ranks or last
digits. Run as ``python -m tests.perturbed [NAME ...]``, or ``make perturbed NAMES=...``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.chapters import CHAPTERS, ROOT, executable, read
from tools.execute import limited

STARTUP = """\
import numpy, spurlib, torch

def perturb(cls):
    gram, random = cls.gram, numpy.random.default_rng({seed})

    def perturbed(self, *arguments, **options):
        K = gram(self, *arguments, **options)
        noise = random.standard_normal(tuple(K.shape))
        if len(set(K.shape)) == 1:
            noise = (noise + noise.T) / 2  # perhaps of samples with themselves: keep it symmetric
        if isinstance(K, torch.Tensor):
            return K * torch.as_tensor(1 + {size} * noise).to(K)
        return (K * (1 + {size} * noise)).astype(K.dtype)

    cls.gram = perturbed

public = [getattr(spurlib, name) for name in spurlib.__all__]  # names are imported when they are first used
classes = [cls for cls in public if isinstance(cls, type)]
for cls in dict.fromkeys(base for cls in classes for base in cls.__mro__ if "gram" in vars(base)):
    perturb(cls)
"""
"""What a kernel does before its first cell: the library itself has no switch for this."""


def options() -> list[str]:
    """Return the options with which the Makefile lets nbval compare."""
    found = re.search(r"^NBVAL := (.*)$", read(ROOT / "Makefile"), re.MULTILINE)
    assert found is not None
    return found[1].split()


def compare(
    notebooks: list[Path], folder: Path, size: float = 1e-12, seed: int = 0
) -> subprocess.CompletedProcess[str]:
    """Compare notebooks, executed with entries of every kernel matrix off by `size` times a normal number.

    Parameters
    ----------
    notebooks : list of path
        The stored notebooks.
    folder : path
        An empty folder, for the settings of the kernels.
    size : float
        Relative size of the perturbation.
    seed : int
        Seed of the perturbation.
    """
    startup = folder / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    (startup / "perturb.py").write_text(STARTUP.format(seed=seed, size=size), encoding="utf-8")
    environ = {name: value for name, value in limited(1).items() if not name.startswith(("PYTEST", "COV"))}
    command = [sys.executable, "-m", "pytest", "-q", *options(), "-p", "no:cacheprovider", *map(str, notebooks)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environ | {"IPYTHONDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )


def main() -> int:
    """Command line: the chapters that are named, or all."""
    failed = 0
    for name in sys.argv[1:] or executable():
        with tempfile.TemporaryDirectory() as folder:
            done = compare([CHAPTERS / f"{name}.ipynb"], Path(folder))
        print(done.stdout if done.returncode else f"{name}: equal", flush=True)
        failed |= done.returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
