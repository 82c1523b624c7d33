"""Data from arrays, and what they say of themselves."""

import numpy as np
import pytest

import spurlib as sl
from spurlib.data import concentration

MASK = np.arange(60) >= 30


def gaussian(seed, n=400, d=60):
    return np.random.default_rng(seed).standard_normal((n, d))


# ---- moments


def test_gaussian_samples_are_as_the_theory_wants_them():
    found = [concentration(gaussian(seed), MASK) for seed in range(20)]
    assert [one.warnings for one in found] == [()] * 20
    z = np.array([one.correlation / one.correlation_error for one in found])
    assert abs(z.mean()) < 3 / 20**0.5 and 0.5 < z.std(ddof=1) < 1.6  # no bias, and the error is the error
    for part in ("dimension_core", "dimension_spurious"):
        values = np.array([getattr(one, part) for one in found])
        assert abs(values.mean() - 30) < 3 * values.std(ddof=1) / 20**0.5 + 0.05


def test_few_samples_of_large_dimension():
    mask = np.arange(1000) >= 500
    found = [concentration(gaussian(seed, n=40, d=1000) + 3, mask) for seed in range(20)]
    z = np.array([one.correlation / one.correlation_error for one in found])
    assert abs(z.mean()) < 3 / 20**0.5 and 0.5 < z.std(ddof=1) < 1.6
    values = np.array([one.dimension_core for one in found])
    assert abs(values.mean() - 500) < 3 * values.std(ddof=1) / 20**0.5
    assert not any("correlated" in text for one in found for text in one.warnings)


@pytest.mark.parametrize("a", [0.3, 0.6, 1.0])
def test_the_correlation_of_mixed_parts(a):
    def mixed(seed):
        Z = gaussian(seed)
        Z[:, 30:] = a * Z[:, :30] + (1 - a**2) ** 0.5 * Z[:, 30:]
        return concentration(Z, MASK)

    found = np.array([mixed(seed).correlation for seed in range(10)])
    assert abs(found.mean() - a**2) < 4 * found.std(ddof=1) / 10**0.5 + 1e-12
    assert any("are correlated" in text for text in mixed(0).warnings)


def test_the_effective_dimension_of_a_known_spectrum():
    values = np.r_[np.linspace(0.2, 3, 30), np.full(3, 10.0), np.full(27, 0.01)]
    found = np.array(
        [
            (one.dimension_core, one.dimension_spurious, one.alpha)
            for one in (concentration(gaussian(seed) * values**0.5, MASK) for seed in range(20))
        ]
    )
    core, spurious = values[:30], values[30:]
    exact = [
        core.sum() ** 2 / (core**2).sum(),
        spurious.sum() ** 2 / (spurious**2).sum(),
        spurious.sum() / values.sum(),
    ]
    assert (abs(found.mean(axis=0) - exact) < 4 * found.std(axis=0, ddof=1) / 20**0.5 + 0.01).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda Z: 10 * Z, "|z|^2 / d is "),
        (lambda Z: Z + 1.0, "of |z|^2 is the mean sample: subtract it"),
        (lambda Z: Z * np.linspace(0.3, 1.5, len(Z))[:, None], "|z|^2 varies by"),
        (lambda Z: Z * np.where(np.arange(60) < 35, 1.0, 0.01), "the spurious part has an effective dimension of 5"),
        (lambda Z: Z * np.where(np.arange(60) > 25, 1.0, 0.01), "the core has an effective dimension of 4"),
    ],
)
def test_what_is_amiss_is_said(change, text):
    assert any(text in found for found in concentration(change(gaussian(1)), MASK).warnings)
    with pytest.warns(UserWarning, match="Z: "):
        sl.SpuriousData.from_arrays(change(gaussian(1)), np.ones(400), spurious=MASK)


def test_wide_data_whose_norms_are_right_but_not_their_scale():
    """As raw tables are: a few large columns. The ratios of `regime` do not see it."""
    Z = gaussian(2, d=60) * np.r_[np.full(3, 600.0), np.ones(57)]
    found = concentration(Z, MASK)
    assert found.scale > 1e4 and found.dimension_core < 5 and len(found.warnings) >= 3


def test_no_spurious_coordinates_and_constant_parts():
    none = concentration(gaussian(3), np.zeros(60, dtype=bool))
    assert none.alpha == 0 and np.isnan(none.dimension_spurious) and none.correlation == 0
    flat = concentration(np.where(MASK, 1.0, gaussian(3)), MASK)
    assert np.isnan(flat.dimension_spurious) and flat.alpha == 0 and abs(flat.mean - 0.5) < 0.05


# ---- data from arrays


def test_queries_from_arrays():
    Z, g = gaussian(0), np.sign(gaussian(0)[:, 0])
    zero = sl.SpuriousData.from_arrays(Z, g, spurious=MASK)
    assert (zero.Z_spurious == np.where(MASK, Z, 0)).all() and zero.alpha == 0.5 and zero.Z_test.shape == (0, 60)
    fresh = sl.SpuriousData.from_arrays(Z, g, spurious=MASK, query="fresh", seed=1)
    same = (fresh.Z_spurious[:, None, :30] == Z[None, :, :30]).all(axis=2)
    assert (
        (fresh.Z_spurious[:, MASK] == Z[:, MASK]).all() and (same.sum(axis=1) == 1).all() and not same.diagonal().any()
    )
    other = sl.SpuriousData.from_arrays(Z, g, spurious=MASK, query="fresh", seed=2)
    assert (other.Z_spurious != fresh.Z_spurious).any()
    own = sl.SpuriousData.from_arrays(Z, g, spurious=MASK, query=zero.Z_spurious, Z_test=Z[:5], g_test=g[:5])
    assert own.query == "given" and (own.g_test == g[:5]).all()
    assert zero.source == "arrays, d = 60"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"Z": np.ones(3)}, "Z must have two axes and four rows or more"),
        ({"Z": np.full((5, 60), np.nan)}, "Z must be a finite number"),
        ({"g": np.ones(3)}, "g must hold one label for each of the 400 samples"),
        ({"spurious": np.ones(60)}, "spurious must be a bool for each of the 60 coordinates"),
        ({"spurious": np.ones(61, dtype=bool)}, "spurious must be a bool for each of the 60 coordinates"),
        ({"query": "one"}, "query must be one of"),
        ({"query": gaussian(5)}, "query must have the shape of Z"),
        ({"Z_test": np.ones((2, 60))}, "Z_test and g_test are given together"),
        ({"Z_test": np.ones((2, 6)), "g_test": np.ones(2)}, "Z_test must have two axes and 60 columns"),
        ({"Z_test": np.ones((2, 60)), "g_test": np.ones(3)}, "g_test must hold one label for each of the 2 samples"),
        ({"seed": -1, "query": "fresh"}, "seed must be"),
    ],
)
def test_bad_arrays_are_refused(changed, message):
    given = {"Z": gaussian(0), "g": np.ones(400), "spurious": MASK} | changed
    with pytest.raises(ValueError, match=message):
        sl.SpuriousData.from_arrays(given.pop("Z"), given.pop("g"), **given)
