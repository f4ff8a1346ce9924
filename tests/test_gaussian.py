"""Ledoit and Wolf's Gaussian against dense covariances from the textbook."""

import numpy as np
import pytest
import slow

from nps_jax import gaussian


def drawn_rows(kind: str) -> tuple[np.ndarray, np.ndarray]:
  """Rows to fit and rows to judge."""
  count, width = {"many": (60, 4), "few": (6, 15), "alike": (5, 3)}.get(kind, (30, 5))
  rng = np.random.default_rng(70)
  mix = np.eye(width) if kind == "alike" else rng.normal(size=(width, width))
  normal = rng.normal(size=(count, width)) @ mix * np.logspace(-3, 3, width) + 5
  if kind == "constant":
    normal[:, 2] = 0.1
  rows = normal[:4] + rng.normal(size=(4, width)) * np.logspace(-3, 3, width)
  return normal, np.concatenate([normal[:2], rows])


@pytest.mark.parametrize("kind", ["many", "few", "alike", "constant"])
def test_distances_agree_with_the_inverse_of_a_dense_covariance(kind):
  normal, rows = drawn_rows(kind)
  found = gaussian.fit(normal)
  want, share = slow.mahalanobis(normal, rows)
  np.testing.assert_allclose(gaussian.distance(found, rows), want, rtol=1e-9)
  assert share == 1 if kind == "alike" else 0.01 < share < 0.9


def test_a_constant_column_does_not_count():
  normal, rows = drawn_rows("constant")
  found = gaussian.fit(normal)
  assert found.scale[2] == np.inf
  before = gaussian.distance(found, rows)
  rows[:, 2] += 1e6
  np.testing.assert_array_equal(gaussian.distance(found, rows), before)
  nothing = gaussian.fit(np.full((7, 5), 0.1, np.float32))
  np.testing.assert_array_equal(gaussian.distance(nothing, rows), np.zeros(6))


@pytest.mark.parametrize("folds", [2, 3, 10])
def test_a_row_is_held_out_of_the_gaussian_that_judges_it(folds):
  known, rows = drawn_rows("many")
  rows = rows[:5]
  want = []
  for at in range(5):
    others = [row for to, row in enumerate(rows) if to % folds != at % folds]
    (value,), _ = slow.mahalanobis(np.concatenate([known, others]), rows[[at]])
    want.append(value)
  np.testing.assert_allclose(gaussian.held_out(known, rows, folds), want, rtol=1e-8)
