"""Maps on other grids and sums of windows, against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow

from nps_jax.models import grids


def drawn(*shape: int) -> jax.Array:
  return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("grid", [(6, 4), (6, 5), (3, 2), (12, 8), (6, 2), (7, 11)])
def test_resizing_agrees_with_float64(grid):
  feats = drawn(2, 3, 2, 4)
  expected = np.zeros((2, *grid, 4))
  for image, channel in np.ndindex(2, 4):
    expected[image, ..., channel] = slow.resize(feats[image, ..., channel], grid)
  found = grids.resized(feats, grid)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 1, 1, 3), (1, 1, 4, 2), (2, 5, 3, 1)])
def test_doubling_is_the_general_form(shape):
  feats = drawn(*shape)
  grid = (2 * shape[1], 2 * shape[2])
  expected = jax.image.resize(feats, (shape[0], *grid, shape[3]), "bilinear")
  np.testing.assert_allclose(grids.resized(feats, grid), expected, atol=1e-6)


def test_doubling_has_the_general_form_s_gradient():
  feats, weights = drawn(2, 3, 2, 4), drawn(2, 6, 4, 4)

  def loss(values, resize):
    return jnp.sum(resize(values) * weights)

  def general(values):
    return jax.image.resize(values, weights.shape, "bilinear")

  expected = jax.grad(loss)(feats, general)
  found = jax.grad(loss)(feats, lambda values: grids.resized(values, (6, 4)))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_window_sums_agree_with_loops():
  feats = drawn(2, 5, 4, 3)
  expected = np.zeros((2, 3, 2, 3))
  for row in range(3):
    for column in range(2):
      window = np.float64(feats[:, row : row + 3, column : column + 3])
      expected[:, row, column] = window.sum(axis=(1, 2))
  np.testing.assert_allclose(grids.window_sum(feats), expected, rtol=1e-5, atol=1e-6)
