"""The estimator passes scikit-learn's own checks, and is the interpolator."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import spurlib as sl


@parametrize_with_checks([sl.KernelInterpolator("relu"), sl.KernelInterpolator("erf", ridge=1e-3)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_it_is_the_interpolator():
    data = sl.synthetic(n=40, d=30, alpha=0.5, n_test=10, seed=0)
    found = sl.KernelInterpolator("relu", ridge=0.0).fit(data.Z, data.g)
    m = sl.Interpolator(sl.InfiniteWidth("relu"), data.Z, data.g)
    assert np.array_equal(found.predict(data.Z_test), m.predict(data.Z_test))
    assert np.array_equal(found.evaluate(data.Z_spurious).own, m.at(data.Z_spurious).own)
    assert np.array_equal(found.loo_residuals_, m.loo_residuals)
    ridged = sl.KernelInterpolator("relu", ridge=0.5).fit(data.Z, data.g)
    mean = float(np.mean(np.diag(sl.InfiniteWidth("relu").gram(data.Z))))
    same = sl.Interpolator(sl.InfiniteWidth("relu"), data.Z, data.g, ridge=0.5 * mean)
    assert ridged.predict(data.Z_test) == pytest.approx(same.predict(data.Z_test), rel=1e-9)
    repeated = np.vstack([data.Z, data.Z[:1]])
    with pytest.raises(sl.SingularKernelError):
        sl.KernelInterpolator("relu", ridge=0.0).fit(repeated, np.r_[data.g, data.g[:1]])
