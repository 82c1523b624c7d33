"""Formulas for alignments and accuracies, from Hermite coefficients or a kernel, and the sizes that they assume."""

from .accuracy import Prediction, predict_accuracy
from .alignment import gamma_kernel, gamma_ntk, gamma_rf, gamma_rf_bound
from .correlated import CorrelatedPrediction, predict_correlated
from .filtering import gamma_filter, predict_filter
from .regimes import Regime, regime

__all__ = [
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
]
