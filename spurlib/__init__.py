"""Kernels, Hermite expansions and feature alignment for the study of memorized spurious features."""

from .activations import Activation, activation, activation_names
from .claims import Claim, ClaimError, claim
from .data import (
    DataNotAvailableError,
    SpuriousData,
    first_available,
    framed_images,
    image_counts,
    marked_images,
    synthetic,
)
from .explorer import Explorer
from .features import EmpiricalTangent, RandomFeatures, TangentFeatures
from .hermite import dual_kernel, gaussian_expectation, hermite_basis, hermite_coefficients, hermite_series
from .interpolation import Interpolator, SingularKernelError, Solve
from .kernels import InfiniteWidth
from .networks import (
    DivergedError,
    fully_connected,
    leave_one_out,
    predict,
    resnet18,
    small_cnn,
    train,
    train_many,
    vision_transformer,
)
from .notes import note
from .plotting import COLORS, figure_style, size_axis
from .predictions import Prediction, predict_accuracy
from .recorded import recorded
from .theory import Regime, gamma_ntk, gamma_rf, gamma_rf_bound, regime

__all__ = [
    "COLORS",
    "Activation",
    "Claim",
    "ClaimError",
    "DataNotAvailableError",
    "DivergedError",
    "EmpiricalTangent",
    "Explorer",
    "InfiniteWidth",
    "Interpolator",
    "Prediction",
    "RandomFeatures",
    "Regime",
    "SingularKernelError",
    "Solve",
    "SpuriousData",
    "TangentFeatures",
    "activation",
    "activation_names",
    "claim",
    "dual_kernel",
    "figure_style",
    "first_available",
    "framed_images",
    "fully_connected",
    "gamma_ntk",
    "gamma_rf",
    "gamma_rf_bound",
    "gaussian_expectation",
    "hermite_basis",
    "hermite_coefficients",
    "hermite_series",
    "image_counts",
    "leave_one_out",
    "marked_images",
    "note",
    "predict",
    "predict_accuracy",
    "recorded",
    "regime",
    "resnet18",
    "size_axis",
    "small_cnn",
    "synthetic",
    "train",
    "train_many",
    "vision_transformer",
]
