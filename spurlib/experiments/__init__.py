"""The long experiments behind the figures: their runs, their records, and a command line.

``python -m spurlib.experiments list | run NAME | verify [NAME]``; ``--help`` describes the options.
"""

from .architectures import Architecture, architecture_alignment
from .classes import ClassCurve, class_curve
from .curves import Curve, accuracy_curve
from .definition import SCALES, Experiment
from .depth import DepthOfNetworks, depth_of_networks, ntk_network
from .networks import NetworkCurve, NetworkStability, network_curve, network_stability
from .pages import recorded
from .privacy import Privacy, answers_without, centered, privacy_curve
from .records import (
    CorruptedRecordError,
    MissingRecordError,
    Record,
    RecordError,
    StaleRecordError,
    records_folder,
)
from .registry import experiment, experiment_names, load_record, register
from .runs import OptionError, gram_by, load, run
from .settings import architecture, spurious_data
from .tolerances import Tolerance, of_gradients, of_training, rounding
from .verification import compare, verify

__all__ = [
    "SCALES",
    "Architecture",
    "ClassCurve",
    "CorruptedRecordError",
    "Curve",
    "DepthOfNetworks",
    "Experiment",
    "MissingRecordError",
    "NetworkCurve",
    "NetworkStability",
    "OptionError",
    "Privacy",
    "Record",
    "RecordError",
    "StaleRecordError",
    "Tolerance",
    "accuracy_curve",
    "answers_without",
    "architecture",
    "architecture_alignment",
    "centered",
    "class_curve",
    "compare",
    "depth_of_networks",
    "experiment",
    "experiment_names",
    "gram_by",
    "load",
    "load_record",
    "network_curve",
    "network_stability",
    "ntk_network",
    "of_gradients",
    "of_training",
    "privacy_curve",
    "recorded",
    "records_folder",
    "register",
    "rounding",
    "run",
    "spurious_data",
    "verify",
]
