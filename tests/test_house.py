"""The house: imports run one way, private names stay at home, and the public names are where they are said to be."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import spurlib

LIBRARY = Path(spurlib.__file__).parent

# What each room may import: the folders of the library, and the files at its top.
BASE = {"_checks", "_quadrature", "hermite", "activations"}  # with _functions, which only activations needs
ALLOWED = {
    "": set(),  # spurlib/__init__.py, which imports when a name is asked for
    "_checks": set(),
    "_quadrature": set(),
    "_functions": {"_checks"},
    "_cholesky": {"_checks"},
    "hermite": {"_checks", "_quadrature"},
    "activations": {"_checks", "_quadrature", "_functions", "hermite"},
    "features": BASE,
    "_duals": BASE,
    "kernels": BASE | {"_duals"},
    "_layers": {"_checks"},
    "gradients": {"_checks", "_layers"},
    "evaluation": {"_checks"},
    "filters": {"_checks", "_cholesky", "evaluation"},
    "interpolation": {"_checks", "_cholesky", "evaluation", "filters"},
    "nesting": {"_checks", "_cholesky", "evaluation"},
    "scikit_learn": {"_checks", "evaluation", "interpolation", "kernels"},
    "privacy": {"_checks"},
    "data": {"_checks"},
    "networks": BASE,
    "theory": BASE | {"_duals", "filters", "kernels"},
    "book": {"_checks", "activations", "filters", "kernels", "theory"},
}
ALLOWED["experiments"] = set(ALLOWED) - {"", "book", "scikit_learn", "_layers", "_functions", "_quadrature", "_duals"}


def library():
    """The text of each module by its name in the library; that of ``__init__`` by the name of its folder."""
    found = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        parts = path.relative_to(LIBRARY).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path.read_text(encoding="utf-8")
    return found


def folders(sources):
    """The modules that hold others."""
    return {""} | {name.rpartition(".")[0] for name in sources if "." in name}


def imports(name, sources):
    """What a module imports from the library, anywhere in it: (module, name in it or None, name here, node)."""
    for node in ast.walk(ast.parse(sources[name])):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top, _, module = alias.name.partition(".")
                if top == "spurlib":
                    yield module, None, alias.asname or top, node
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                here = name.split(".") if name else []
                above = here[: len(here) + (name in folders(sources)) - node.level]
                module = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            elif (node.module or "").partition(".")[0] == "spurlib":
                module = node.module.partition(".")[2]
            else:
                continue
            for alias in node.names:
                inner = f"{module}.{alias.name}".strip(".")
                if inner in sources:
                    yield inner, None, alias.asname or alias.name, node
                else:
                    yield module, alias.name, alias.asname or alias.name, node


def forbidden(sources):
    """Imports from one room to another that may not be: pairs of a module and what it imports."""
    return {
        (name, module)
        for name in sources
        for module, *_ in imports(name, sources)
        if (to := module.partition(".")[0]) != (at := name.partition(".")[0]) and to not in ALLOWED[at]
    }


def order(sources):
    """The modules, each after those that it imports; a ``CycleError`` where there is none."""
    return list(TopologicalSorter({name: {m for m, *_ in imports(name, sources)} for name in sources}).static_order())


def private(name):
    return name.startswith("_") and not name.endswith("__")


def members(source):
    """Private names of the classes of a module: methods, fields, and what is assigned to attributes."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            for each in node.body:
                targets = each.targets if isinstance(each, ast.Assign) else [getattr(each, "target", None)]
                found |= {getattr(each, "name", ""), *(getattr(target, "id", "") for target in targets)}
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return {name for name in found if private(name)}


def offenders(sources):
    """Private names that a module uses and another one defines: pairs of the user, and the home with the name."""
    owners = {name: members(source) for name, source in sources.items()}
    found = set()
    for name, source in sources.items():
        foreign = {}
        for module, inner, here, _ in imports(name, sources):
            foreign[here] = module
            if inner and private(inner):
                found.add((name, f"{module}.{inner}"))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and private(node.attr):
                if isinstance(node.value, ast.Name) and node.value.id in foreign:
                    found.add((name, f"{foreign[node.value.id]}.{node.attr}"))
                elif node.attr not in owners[name]:
                    found |= {(name, f"{home}.{node.attr}") for home, names in owners.items() if node.attr in names}
    return found


# ---- imports


def test_every_room_has_its_place():
    assert {name.partition(".")[0] for name in library()} <= set(ALLOWED)


def test_imports_run_one_way():
    assert forbidden(library()) == set()


def test_modules_import_in_no_circle():
    assert set(order(library())) == set(library())


def test_modules_of_the_library_are_imported_at_the_top():
    # and so not inside a function or a block for type checkers, which hide a circle; but for those that spare the
    # theory and the explorer the import of torch
    sources, late = library(), set()
    for name, source in sources.items():
        top = {node.lineno for node in ast.parse(source).body}
        late |= {(name, module) for module, *_, node in imports(name, sources) if node.lineno not in top}
    assert late == {
        ("book.explorer", "filters"),
        ("book.explorer", "kernels"),
        ("theory.alignment", "_duals"),
        ("theory.alignment", "kernels"),
        ("theory.correlated", "kernels"),
        ("theory.filtering", "filters"),
    }


PLANTED = {
    "": "",
    "hermite": "import numpy as np\nfrom .experiments.runs import run",
    "features": "def later():\n    import spurlib.book.figures as figures",
    "book": "from .figures import style",
    "book.figures": "from .. import data\nfrom ..theory import law\nfrom spurlib.hermite import _wide",
    "data": "",
    "theory": "from .law import law",
    "theory.law": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..kernels import Kernel",
    "kernels": "from . import theory",
    "experiments": "",
    "experiments.runs": "from . import records as kept\nfrom ..features import Features",
    "experiments.records": "from ..data import __version__",
}


def test_planted_imports_are_found():
    found = {name: [each[:3] for each in imports(name, PLANTED)] for name in PLANTED}
    assert found["hermite"] == [("experiments.runs", "run", "run")]
    assert found["features"] == [("book.figures", None, "figures")]
    assert found["book.figures"] == [("data", None, "data"), ("theory.law", None, "law"), ("hermite", "_wide", "_wide")]
    assert found["experiments.runs"] == [("experiments.records", None, "kept"), ("features", "Features", "Features")]
    assert found["book"] == [("book.figures", "style", "style")]
    wrong = {("hermite", "experiments.runs"), ("features", "book.figures"), ("kernels", "theory")}
    assert forbidden(PLANTED) == wrong | {("book.figures", "data"), ("book.figures", "hermite")}
    with pytest.raises(CycleError):
        order({name: PLANTED[name] for name in ("", "kernels", "theory", "theory.law")})
    assert order({name: PLANTED[name] for name in ("", "theory.law", "theory", "kernels")} | {"kernels": ""})


# ---- private names


def test_private_names_stay_at_home():
    assert offenders(library()) == set()


def test_planted_private_names_are_found():
    sources = {
        "a": "class A:\n _f: int = 0\n def _g(self):\n  self._h = A._own\n def _own(): ...\ndef _i(): ...",
        "b": "from .a import A, _i\nfrom . import a\nclass B(A):\n def use(self): return self._f, A._own, a._i",
        "c": "def _h(): ...\ndef use(x): return x._h, x.__dict__, x._outside, x.f._g()",
        "d": "class D:\n def __init__(self, x): self._f = x._f",
    }
    wrong = {("b", "a._f"), ("b", "a._own"), ("b", "a._i"), ("c", "a._h"), ("c", "a._g")}
    assert offenders(sources) == wrong | {("b", "d._f")}  # of d nobody can tell whose x is


# ---- public names


def test_the_stub_names_what_the_package_has():
    rooms, homes = [], {}
    for node in ast.parse((LIBRARY / "__init__.pyi").read_text(encoding="utf-8")).body:
        assert isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names:
            assert alias.asname == alias.name  # which makes it public
            if node.module is None:
                rooms.append(alias.name)
            else:
                homes.setdefault(node.module, []).append(alias.name)
    assert {module: sorted(names) for module, names in spurlib._HOME.items()} == {
        module: sorted(names) for module, names in homes.items()
    }
    assert sorted(rooms) == sorted(spurlib._ROOMS)
    listed = [name for names in spurlib._HOME.values() for name in names]
    assert sorted(listed) == spurlib.__all__ and len(set(listed)) == len(listed)


def test_every_public_name_is_public_in_its_home():
    for module, names in spurlib._HOME.items():
        home = import_module(f"spurlib.{module}")
        assert set(names) <= set(home.__all__), module
        for name in names:
            assert getattr(spurlib, name) is getattr(home, name)
    for room in spurlib._ROOMS:
        assert getattr(spurlib, room) is import_module(f"spurlib.{room}")
    assert {*spurlib.__all__, *spurlib._ROOMS} <= set(dir(spurlib))
    with pytest.raises(AttributeError, match="module 'spurlib' has no attribute 'gamma_fr'"):
        _ = spurlib.gamma_fr


TORCHLESS = """
import sys
import spurlib as sl
sl.hermite_coefficients(sl.activation("mish"), 3), sl.gamma_ntk("relu", 0.5)
sl.regime(n=10, d=10, k=10)
sl.gamma_rf("h1+h2", 0.5, ratio=1.0), sl.predict_accuracy("tanh", 0.5, n=10, d=20)
sl.synthetic(n=5, d=6, alpha=0.5)
sl.privacy.gdp_epsilon(1.0, 1e-5)
print("torch" in sys.modules)
"""


def test_formulas_and_samples_do_without_torch():
    done = subprocess.run([sys.executable, "-c", TORCHLESS], capture_output=True, text=True, timeout=300)
    assert done.stdout == "False\n", done.stderr


FRESH = """
import sys
import spurlib
heavy = {"torch", "pandas", "matplotlib"}
print(sorted(heavy & set(sys.modules)), {*spurlib.__all__, *spurlib._ROOMS} <= set(dir(spurlib)))
for name in set(dir(spurlib)) - {"KernelInterpolator"}:  # scikit-learn imports pandas
    getattr(spurlib, name)
print(sorted(heavy & set(sys.modules)), len(vars(spurlib)) >= len(spurlib.__all__))
"""


def test_a_fresh_import_is_light_and_finds_all():
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["[] True", "['torch'] True"], done.stderr


@pytest.mark.parametrize(
    ("command", "shown"), [(["experiments", "list"], "rf-synthetic"), (["data", "--help"], "mnist, cifar10")]
)
def test_commands(command, shown):
    module, *rest = command
    done = subprocess.run(
        [sys.executable, "-m", f"spurlib.{module}", *rest], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and shown in done.stdout, done.stderr
