"""Kernels, Hermite expansions and feature alignment for the study of memorized spurious features.

Names and modules are imported when they are first used: ``spurlib.gamma_rf`` does not import torch, and only
``spurlib.experiments`` needs pandas.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

_HOME = {
    "hermite": ("dual_kernel", "gaussian_expectation", "hermite_basis", "hermite_coefficients", "hermite_series"),
    "activations": ("Activation", "activation", "activation_names"),
    "features": ("RandomFeatures", "TangentFeatures"),
    "gradients": ("EmpiricalTangent",),
    "kernels": ("InfiniteWidth", "InnerProductKernel", "KernelNumbers"),
    "filters": ("FilteredSolve",),
    "interpolation": ("Evaluation", "Interpolator", "SingularKernelError", "Solve"),
    "nesting": ("Nested", "nested"),
    "scikit_learn": ("KernelInterpolator",),
    "theory": (
        "CorrelatedPrediction",
        "Prediction",
        "Regime",
        "gamma_filter",
        "gamma_kernel",
        "gamma_ntk",
        "gamma_rf",
        "gamma_rf_bound",
        "predict_accuracy",
        "predict_correlated",
        "predict_filter",
        "regime",
    ),
    "data": (
        "Concentration",
        "DataNotAvailableError",
        "SpuriousData",
        "concentration",
        "first_available",
        "framed_images",
        "image_counts",
        "marked_images",
        "synthetic",
    ),
    "networks": (
        "DivergedError",
        "fully_connected",
        "leave_one_out",
        "predict",
        "resnet18",
        "small_cnn",
        "train",
        "train_many",
        "vision_transformer",
    ),
    "experiments.pages": ("recorded",),
    "book": ("COLORS", "Claim", "ClaimError", "Explorer", "claim", "figure_style", "note", "size_axis"),
}
"""The public names of each module; ``__init__.pyi`` repeats them for editors and type checkers."""

_ROOMS = ("activations", "book", "data", "experiments", "features", "filters", "gradients", "hermite", "interpolation")
_ROOMS += ("kernels", "nesting", "networks", "privacy", "theory")
_MODULE = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE)


def __getattr__(name: str) -> _Any:
    if name in _MODULE:
        value = getattr(_import_module(f".{_MODULE[name]}", __name__), name)
    elif name in _ROOMS:
        value = _import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
