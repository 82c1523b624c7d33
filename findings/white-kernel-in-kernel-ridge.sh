#!/usr/bin/env bash
# scikit-learn: the noise of a WhiteKernel vanishes in pairwise_kernels, and so in kernel ridge regression.
#
# Expected: WhiteKernel is documented as the noise level where its two arguments are the same point and zero
# elsewhere, and pairwise_kernels with one array as the kernel between the rows of that array. KernelRidge hands its
# kernel to that function, and kernel objects of the Gaussian process module are accepted there. So RBF() +
# WhiteKernel(1) should regularise kernel ridge regression as it does Gaussian process regression, whose mean has the
# same formula.
# Happens: the noise appears only when the kernel object is called with one array. pairwise_kernels always calls it
# with two, the array and itself, and then WhiteKernel is zero, at equal rows as well. The noise is dropped without a
# warning: kernel ridge regression with a small alpha interpolates the data which the Gaussian process smooths.
# Seen in: scikit-learn 1.6.1 and 1.9.1.
# Instead: give the noise level as alpha of KernelRidge, or fit with kernel="precomputed" on kernel(X).
set -euo pipefail
unset PYTHONPATH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
cd "$work"

for version in 1.6.1 1.9.1; do
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 "scikit-learn==$version"
  "$work/venv/bin/python" - <<'END'
import numpy as np
import sklearn
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import pairwise_kernels

print("scikit-learn", sklearn.__version__)
x = np.linspace(0.0, 7.0, 8)[:, None]
y = np.array([1.0, -1.0, 1.0, 0.0, 2.0, -1.0, 0.0, 1.0])
noise = WhiteKernel(1.0)
kernel = RBF() + noise

print("diagonal, called with one array:", np.diag(noise(x)))
print("diagonal, by pairwise_kernels:  ", np.diag(pairwise_kernels(x, metric=noise)))
assert np.array_equal(noise(x), np.eye(8))
assert not noise(x, x).any(), "behaviour changed"
assert not pairwise_kernels(x, metric=noise).any(), "behaviour changed"

process = GaussianProcessRegressor(kernel, alpha=1e-9, optimizer=None).fit(x, y).predict(x)
ridge = KernelRidge(kernel=kernel, alpha=1e-9).fit(x, y).predict(x)
print("Gaussian process, largest residual:", np.abs(process - y).max())
print("kernel ridge, largest residual:    ", np.abs(ridge - y).max())
assert np.abs(process - y).max() > 0.3
assert np.abs(ridge - y).max() < 1e-6, "behaviour changed"

by_alpha = KernelRidge(kernel=RBF(), alpha=1.0).fit(x, y).predict(x)
by_matrix = KernelRidge(kernel="precomputed", alpha=1e-9).fit(kernel(x), y).predict(kernel(x, x))
print("kernel ridge with the noise as alpha, or precomputed, and the process differ by:",
      np.abs(by_alpha - process).max(), np.abs(by_matrix - process).max())
assert max(np.abs(by_alpha - process).max(), np.abs(by_matrix - process).max()) < 1e-6
END
done
echo "As described: kernel ridge regression interpolates; the noise term had no effect."
