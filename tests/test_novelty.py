"""The loss of what is new, against a slow float64 search for the nearest patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax.pretraining import novelty

pytestmark = pytest.mark.slow  # with all that trains the built-in encoder

KITS, PHOTOGRAPHS, CHANGED = 2, 5, 2


def slow_patches(feats):
  padded = np.pad(np.float64(feats), ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
  high, wide = feats.shape[1:3]
  shifted = [
    padded[:, row : row + high, column : column + wide]
    for row in range(3)
    for column in range(3)
  ]
  return np.mean(shifted, axis=0)


def slow_loss(feats, new):
  patches = slow_patches(feats).reshape(KITS, PHOTOGRAPHS, -1, feats.shape[-1])
  side = new.shape[1] // feats.shape[1]
  shares = new.reshape(len(new), feats.shape[1], side, feats.shape[2], side)
  shares = shares.mean(axis=(2, 4)).reshape(KITS, PHOTOGRAPHS, -1)
  losses = []
  for rows, share in zip(patches, shares, strict=True):
    highest = []
    for one in range(PHOTOGRAPHS):
      others = [each for each in range(CHANGED, PHOTOGRAPHS) if each != one]
      known = np.concatenate([rows[each] for each in others])
      gaps = np.square(rows[one][:, None] - known[None]).sum(-1).min(1)
      kept = gaps[share[one] > 0.1] if one < CHANGED else gaps
      highest.append(np.sum(kept**4) ** 0.25)
    for of_new in highest[:CHANGED]:
      if of_new:
        ratios = [np.log(each / of_new) for each in highest[CHANGED:]]
        losses.append(np.mean(np.log1p(np.exp(2 * np.array(ratios)))))
  return np.mean(losses)


def test_the_loss_is_that_of_a_slow_search():
  rng = np.random.default_rng(0)
  feats = rng.normal(size=(10, 4, 6, 3)).astype(np.float32)
  new = np.zeros((10, 16, 24), np.int32)
  new[0, 3:9, 2:7] = 1
  new[5, 1, 1], new[6, 8:, :5] = 1, 1  # the first covers too little of its cell
  found = novelty.loss(jnp.asarray(feats), jnp.asarray(new), KITS, CHANGED)
  np.testing.assert_allclose(found, slow_loss(feats, new), rtol=1e-4)
  longer = novelty.loss(jnp.asarray(7 * feats), jnp.asarray(new), KITS, CHANGED)
  np.testing.assert_allclose(longer, found, rtol=1e-3)


def test_a_new_place_that_shows_costs_little_and_none_at_all_nothing():
  rng = np.random.default_rng(1)
  feats = np.tile(rng.normal(size=(1, 4, 4, 3)), (10, 1, 1, 1))
  feats = np.float32(feats + 0.01 * rng.normal(size=feats.shape))
  new = np.zeros((10, 16, 16), np.int32)
  new[[0, 1, 5, 6], 4:8, 4:8] = 1
  hidden = novelty.loss(jnp.asarray(feats), jnp.asarray(new), KITS, CHANGED)
  feats[[0, 1, 5, 6], 1, 1] += 3
  shown = novelty.loss(jnp.asarray(feats), jnp.asarray(new), KITS, CHANGED)
  assert shown < 0.01 < 0.5 < hidden
  assert novelty.loss(jnp.asarray(feats), jnp.zeros_like(new), KITS, CHANGED) == 0


def test_the_gradient_is_finite_where_nothing_is_new():
  feats = jnp.ones((10, 4, 4, 3))
  new = jnp.zeros((10, 16, 16), jnp.int32)
  slope = jax.grad(lambda each: novelty.loss(each, new, KITS, CHANGED))(feats)
  assert np.isfinite(slope).all()
