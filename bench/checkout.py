"""A plugin of asv: commits are checked out and run by the Python that runs asv; nothing is installed.

asv's own environments install each commit with all it needs; its mode for an existing environment takes no commits.
"""

import os
import sys

from asv import util
from asv.environment import Environment


class Checkout(Environment):
    tool_name = "checkout"

    def __init__(self, conf, python, requirements, tagged_env_vars):
        self._requirements = requirements  # the base class reads it before it sets it
        super().__init__(conf, python, requirements, tagged_env_vars)

    def check_presence(self):
        return os.path.isdir(self._path)

    def _setup(self):
        os.makedirs(self._path)

    def run(self, args, **kwargs):
        kwargs["env"] = kwargs.get("env", os.environ) | {"ASV_PYTHONPATH": self._build_root}
        return util.check_output([sys.executable, *args], **kwargs)
