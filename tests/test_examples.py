"""The examples in the docstrings run, and every public function has one."""

import doctest
import importlib
import inspect
import pkgutil
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import spurlib as sl

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(sl.__path__, "spurlib.") if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of(name):
    found = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert found.failed == 0


def test_every_public_function_and_kernel_has_an_example():
    without = [
        name
        for name in sl.__all__
        if (inspect.isfunction(thing := getattr(sl, name)) or hasattr(thing, "gram") or hasattr(thing, "predict"))
        and ">>>" not in (inspect.getdoc(thing) or "")
    ]
    assert without == []


def test_examples_import_numpy_where_they_use_it():
    tests = [test for name in MODULES for test in doctest.DocTestFinder().find(importlib.import_module(name))]
    texts = {test.name: "".join(example.source for example in test.examples) for test in tests}
    assert [name for name, text in texts.items() if "np." in text and "import numpy as np" not in text] == []


def test_the_recipes_of_the_readme_run(capsys):
    """In order, as a reader would: the samples of the third block are the reader's own."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    rng = np.random.default_rng(0)
    mask = np.arange(80) >= 40
    names = {"Z": rng.standard_normal((60, 80)), "g": rng.choice([-1.0, 1.0], 60), "mask": mask}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in blocks:
            exec(block, names)
    first, law, spurious, trained, deep, learned, stopped = map(float, capsys.readouterr().out.split())
    expected = sl.predict_accuracy("relu", 0.5, n=500, d=1000).spurious
    assert abs(first - law) < 0.01 and 0.1 < trained < 1
    assert 0.07 < deep < 0.09 and 0.5 < stopped < learned < 1
    assert abs(spurious - expected) < 3 * (expected * (1 - expected) / 500) ** 0.5  # of 500 samples
    assert names["m"].at(names["own"].Z_spurious).own.shape == (60,)
