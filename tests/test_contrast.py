"""Objects' features and their contrast, against slow float64 sums and hand values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax.pretraining import contrast

pytestmark = pytest.mark.slow  # with all that trains the built-in encoder


def slow_loss(rows, kind, visible):
  rows = np.float64(rows)
  rows = rows - rows[visible].mean(0)
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  losses = []
  for one in np.flatnonzero(visible):
    others = [each for each in np.flatnonzero(visible) if each != one]
    likeness = {each: rows[one] @ rows[each] / 0.1 for each in others}
    total = np.log(np.sum(np.exp(list(likeness.values()))))
    same = [total - likeness[each] for each in others if kind[each] == kind[one]]
    losses += [np.mean(same)] if same else []
  return np.mean(losses)


def test_an_object_is_to_find_those_of_its_kind():
  rng = np.random.default_rng(0)
  rows = rng.normal(size=(30, 6)).astype(np.float32)
  kind, visible = rng.integers(0, 12, 30), rng.random(30) < 0.7
  assert min(np.bincount(kind[visible])) < 2  # there are objects without another
  found = contrast.loss(*map(jnp.asarray, (rows, kind, visible)))
  np.testing.assert_allclose(found, slow_loss(rows, kind, visible), rtol=1e-5)
  hidden = np.where(visible[:, None], rows, 1e3)
  found = contrast.loss(*map(jnp.asarray, (hidden, kind, visible)))
  np.testing.assert_allclose(found, slow_loss(rows, kind, visible), rtol=1e-5)


def test_loss_of_objects_that_are_told_apart_and_of_such_that_are_not():
  seen, kind = jnp.ones(6, bool), jnp.array([0, 0, 1, 1, 2, 2])
  apart = jnp.eye(3)[kind]
  want = np.log(1 + 4 * np.exp(-1.5 / 0.1))  # cosines of 1 and -1/2
  np.testing.assert_allclose(contrast.loss(apart, kind, seen), want, atol=1e-6)
  np.testing.assert_allclose(
    contrast.loss(jnp.ones((6, 4)), kind, seen), np.log(5), rtol=1e-6
  )
  alone = contrast.loss(apart, jnp.arange(6), seen)
  assert alone == 0


def test_means_are_over_the_cells_that_an_item_covers():
  rng = np.random.default_rng(1)
  item = rng.integers(0, 4, (2, 16, 16))
  item[1] = np.where(item[1] == 3, 0, item[1])
  item[0, :, 8:] = np.where(item[0, :, 8:] == 2, 1, item[0, :, 8:])
  feats = {
    level: rng.normal(size=(2, 16 >> level, 16 >> level, 3)).astype(np.float32)
    for level in (2, 3)
  }
  found, visible = contrast.means(
    jax.tree.map(jnp.asarray, feats), jnp.asarray(item, jnp.int32), 4
  )
  for level, each in feats.items():
    for image in range(2):
      for index in range(4):
        rows, columns = np.nonzero(item[image] == index)
        values = np.float64(each)[image, rows >> level, columns >> level]
        want = values.mean(0) if len(values) else np.zeros(3)
        np.testing.assert_allclose(
          found[level][4 * image + index], want, rtol=1e-4, atol=1e-5
        )
  counts = np.stack([np.bincount(each.ravel(), minlength=4) for each in item])
  np.testing.assert_array_equal(visible, counts.ravel() > contrast.VISIBLE)
  assert 0 < np.sum(visible) < 8


def test_maps_are_linear():
  means = {3: jax.random.normal(jax.random.key(0), (7, 5))}
  rows, held = contrast.Maps().init_with_output(jax.random.key(1), means)
  want = np.float64(means[3]) @ np.float64(held["params"]["map3"]["kernel"])
  np.testing.assert_allclose(rows[3], want, rtol=1e-4, atol=1e-5)
