"""The page of the library: its drawing and its table name what is there."""

import importlib
import inspect
import re
import xml.etree.ElementTree as ET

import pytest

import spurlib as sl
from tools.chapters import CHAPTERS

TEXT = (CHAPTERS / "library.md").read_text(encoding="utf-8")
ROWS = [line.split("|")[1:-1] for line in TEXT.splitlines() if line.startswith("|")][2:]


def test_the_drawing_names_the_rooms():
    drawn = {text.text for text in ET.parse(CHAPTERS / "rooms.svg").iterfind(".//{*}text[@class='name']")}
    assert drawn == set(sl._ROOMS)


@pytest.mark.parametrize(("functions", "module"), [row[-2:] for row in ROWS])
def test_each_function_of_the_table_is_in_its_module(functions, module):
    room = importlib.import_module(f"spurlib.{module.strip().strip('`')}")
    names = [re.match(r"(?:m = )?(\w+)(?:\.(\w+))?", code) for code in re.findall(r"`([^`]+)`", functions)]
    assert names
    for name, attribute in (found.groups() for found in names):
        owner = room.Interpolator if name == "m" else getattr(room, name)
        if name != "m":
            assert owner is getattr(sl, name, owner) and name in room.__all__
        if name == "m":
            assert hasattr(owner, attribute) or attribute in inspect.getsource(owner)


def test_every_public_name_is_documented_on_the_page():
    modules = re.findall(r"automodule:: spurlib\.(\w+)", TEXT)
    listed = {name for module in modules for name in importlib.import_module(f"spurlib.{module}").__all__}
    assert set(sl.__all__) <= listed
