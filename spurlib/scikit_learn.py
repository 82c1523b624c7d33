"""Kernel interpolation as an estimator of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._checks import needed

needed("sklearn", "scikit-learn")
from sklearn.base import BaseEstimator, RegressorMixin  # noqa: E402
from sklearn.utils.validation import check_is_fitted, validate_data  # noqa: E402

from .evaluation import Evaluation  # noqa: E402
from .interpolation import Interpolator  # noqa: E402
from .kernels import InfiniteWidth  # noqa: E402

__all__ = ["KernelInterpolator"]


class KernelInterpolator(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    r"""Kernel ridge regression with feature alignments, for the pipelines and searches of scikit-learn.

    Parameters
    ----------
    kernel : str or kernel
        The name of an activation, whose kernel of infinite width is used; or a kernel as for `Interpolator`.
    ridge : float
        Number that is added to the diagonal of the kernel matrix, as a fraction of the mean of the diagonal. It must be
        positive if samples may be repeated.

    Attributes
    ----------
    interpolator_ : Interpolator
        The fit.
    loo_residuals_ : ndarray, shape (n,) or (n, outputs)
        Leave-one-out residuals.

    Raises
    ------
    ValueError, SingularKernelError
        As for `Interpolator`, when the estimator is fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import cross_val_score
    >>> X = np.random.default_rng(0).standard_normal((60, 5))
    >>> bool(cross_val_score(KernelInterpolator("relu"), X, X @ np.ones(5)).mean() > 0.7)
    True
    """

    def __init__(self, kernel: Any = "relu", *, ridge: float = 1e-8):
        self.kernel = kernel
        self.ridge = ridge

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> KernelInterpolator:
        """Fit the training samples X, shape (n, d), and their labels y, shape (n,) or (n, outputs)."""
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=np.float64)
        kernel: Any = InfiniteWidth(self.kernel) if isinstance(self.kernel, str) else self.kernel
        gram = getattr(kernel, "gram", kernel)
        own = [float(gram(x, x)[0, 0]) for x in X[:, None]]
        self.interpolator_ = Interpolator(kernel, X, y, ridge=self.ridge * float(np.mean(own)))
        self.loo_residuals_ = self.interpolator_.loo_residuals
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the predictions at the rows of X, shape (q,) or (q, outputs)."""
        return np.asarray(self.evaluate(X).predictions)

    def evaluate(self, X: Any) -> Evaluation:
        """Return predictions, alignments and stabilities at the rows of X: see `Interpolator.at`."""
        check_is_fitted(self)
        return self.interpolator_.at(validate_data(self, X, reset=False, dtype=np.float64))
