"""Formulas: Hermite coefficients in, alignments and accuracies out, and how far a size is from the assumptions."""

from .accuracy import Prediction, predict_accuracy
from .alignment import gamma_ntk, gamma_rf, gamma_rf_bound
from .regimes import Regime, regime

__all__ = ["Prediction", "Regime", "gamma_ntk", "gamma_rf", "gamma_rf_bound", "predict_accuracy", "regime"]
