"""Notes are stored as myst_nb's glue stores them, and stay out of the way outside notebooks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import spurlib as sl


@pytest.fixture
def notebook():
    """Let IPython run in this process, as it does in a kernel; return what collects its outputs."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    yield capture_output
    InteractiveShell.clear_instance()


@pytest.mark.parametrize("value", [0.25, 3, "a < b", None, [1, 2], np.float64(0.5), {"a": 1}], ids=str)
def test_a_note_is_what_glue_stores(notebook, value):
    glue = pytest.importorskip("myst_nb").glue
    stored = []
    for store in (sl.note, lambda name, value: glue(name, value, display=False)):
        with notebook() as captured:
            store("a-name_1", value)
        stored.append([(output.data, output.metadata) for output in captured.outputs])
    assert stored[0] == stored[1]
    assert captured.stdout == ""


def test_a_note_is_not_shown(notebook):
    with notebook() as captured:
        sl.note("accuracy", 0.25)
    (output,) = captured.outputs
    assert output.data == {"application/papermill.record/text/plain": "0.25"}
    assert output.metadata["scrapbook"]["name"] == "accuracy"


@pytest.mark.parametrize("name", ["", "a:.2f", "two words", "a`b", 3, None])
def test_a_name_that_the_text_cannot_hold_is_refused(name):
    with pytest.raises(ValueError, match="name must be made of letters"):
        sl.note(name, 1)


@pytest.mark.parametrize("block", ["", "sys.modules['IPython'] = None; "])
def test_outside_a_notebook_nothing_is_stored_or_printed(block):
    code = f"import sys; {block}import spurlib as sl; sl.note('a', 1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
