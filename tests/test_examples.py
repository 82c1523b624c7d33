"""The examples in the docstrings run, and every public function has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import spurlib as sl

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
