"""Gaussian integrals by Gauss-Legendre panels that end at kinks: they know nothing of Hermite polynomials."""

from __future__ import annotations

import math

import numpy as np


def gauss(edges, nodes=20):
    """Nodes and weights for the Gaussian measure on panels; the last axis of `edges` holds their ends."""
    z, w = np.polynomial.legendre.leggauss(nodes)
    z, w = z * (3 - z * z) / 2, w * 1.5 * (1 - z * z)
    edges = np.sort(np.clip(edges, -9, 9), axis=-1)
    half = np.diff(edges)[..., None] / 2
    x = (edges[..., :-1, None] + half * (1 + z)).reshape(*edges.shape[:-1], -1)
    return x, (half * w).reshape(x.shape) * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def iterated(f, s, t, rho, nodes=20):
    """E[f(s u) f(t v)]: over u, and inside over what v = rho u + r w has besides u."""
    kinks, r = np.array(f.kinks), math.sqrt(1 - rho * rho)
    grid = np.linspace(-9, 9, 19)
    if r == 0:
        u, p = gauss(np.r_[grid, kinks / s, kinks / t, -kinks / t], nodes)
        return p @ (f(s * u) * f(rho * t * u))
    meets = np.divide.outer(kinks / t, [rho]).ravel() if rho else np.empty(0)  # rounded off there, on the scale of r
    steps = np.r_[0, 1, 2, 4, 8] * r
    u, p = gauss(np.r_[grid, kinks / s, np.add.outer(meets, np.r_[-steps, steps]).ravel()], nodes)
    edges = np.concatenate([np.tile(grid[::2], (len(u), 1)), (kinks / t - rho * u[:, None]) / r], axis=1)
    w, q = gauss(edges, nodes)
    return p @ (f(s * u) * (q * f(t * (rho * u[:, None] + r * w))).sum(axis=1))


def moment(f, power=0):
    """E[u^power f(u)]."""
    u, p = gauss(np.r_[np.linspace(-9, 9, 19), f.kinks], 40)
    return p @ (u**power * f(u))
