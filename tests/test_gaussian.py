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


def drawn_moves(normal: np.ndarray, count: int = 9) -> np.ndarray:
  rng = np.random.default_rng(71)
  return (
    rng.normal(size=(count, 2))
    @ rng.normal(size=(2, normal.shape[1]))
    * (normal.std(axis=0))
  )


def dense(
  normal: np.ndarray, moves: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """S^-1 - (S + M)^-1 of scaled rows, by inverting both; and the centre."""
  centre = normal.mean(axis=0)
  covariance, _ = slow.ledoit_wolf((normal - centre) / scale)
  scatter = sum(np.outer(row, row) for row in moves / scale) / len(moves)
  wider = covariance + gaussian.PULL * scatter
  return np.linalg.inv(covariance) - np.linalg.inv(wider), centre


@pytest.mark.parametrize("kind", ["many", "few", "alike", "constant"])
def test_distances_agree_with_the_inverse_of_a_dense_covariance(kind):
  normal, rows = drawn_rows(kind)
  fitted = gaussian.fit(normal)
  want, share = slow.mahalanobis(normal, rows)
  np.testing.assert_allclose(gaussian.distance(fitted, rows), want, rtol=1e-9)
  assert share == 1 if kind == "alike" else 0.01 < share < 0.9


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("kind", ["many", "few", "alike"])
def test_edits_aim_the_distance_as_dense_inverses_do(kind, own):
  """With the columns' spreads for units, and with units of one's own."""
  normal, rows = drawn_rows(kind)
  moves = drawn_moves(normal)
  scale = normal.std(axis=0) * (np.arange(normal.shape[1]) + 1 if own else 1)
  fitted = gaussian.fit(normal, moves, scale if own else None)
  precision, centre = dense(normal, moves, scale)
  units = (rows - centre) / scale
  want = np.sqrt([unit @ precision @ unit for unit in units])
  np.testing.assert_allclose(gaussian.distance(fitted, rows), want, rtol=1e-7)
  along = centre + moves  # what an edit does is far, what no edit does is not
  across = np.linalg.svd(moves / scale)[2][-1] * scale
  if kind == "alike" and not own:  # the covariance is round
    assert gaussian.distance(fitted, along).max() > 0.5
    np.testing.assert_allclose(
      gaussian.distance(fitted, centre[None] + 50 * across), 0, atol=1e-9
    )


@pytest.mark.parametrize("aimed", [False, True])
@pytest.mark.parametrize("kind", ["many", "few", "constant"])
def test_pull_times_the_difference_is_the_squared_distance(kind, aimed):
  """And it is half of the squared distance's slope."""
  normal, rows = drawn_rows(kind)
  moves = drawn_moves(normal) if aimed else None
  fitted = gaussian.fit(normal, moves)
  pull = gaussian.pull(fitted, rows)
  squared = np.sum(pull * (rows - fitted.centre), axis=1)
  np.testing.assert_allclose(
    squared, gaussian.distance(fitted, rows) ** 2, rtol=1e-8, atol=1e-9
  )
  step = 1e-4 * normal.std(axis=0)
  for column in range(rows.shape[1]):
    shift = np.eye(rows.shape[1])[column] * step
    above, below = (
      gaussian.distance(fitted, rows + sign * shift) ** 2 for sign in (1, -1)
    )
    slope = (above - below) / 4 if step[column] else np.zeros(len(rows))
    reach = np.abs(pull * step).max()
    np.testing.assert_allclose(
      pull[:, column] * step[column], slope, atol=1e-6 * max(reach, 1)
    )


def test_no_edits_aim_nothing():
  normal, rows = drawn_rows("many")
  plain = gaussian.distance(gaussian.fit(normal), rows)
  none = gaussian.fit(normal, np.zeros((0, normal.shape[1])))
  np.testing.assert_array_equal(gaussian.distance(none, rows), plain)


@pytest.mark.parametrize("aimed", [False, True])
def test_a_constant_column_does_not_count(aimed):
  normal, rows = drawn_rows("constant")
  moves = drawn_moves(normal) + 1 if aimed else None
  fitted = gaussian.fit(normal, moves)
  assert fitted.scale[2] == np.inf
  before = gaussian.distance(fitted, rows)
  rows[:, 2] += 1e6
  np.testing.assert_array_equal(gaussian.distance(fitted, rows), before)
  np.testing.assert_array_equal(gaussian.pull(fitted, rows)[:, 2], 0)
  nothing = gaussian.fit(np.full((7, 5), 0.1, np.float32))
  np.testing.assert_array_equal(gaussian.distance(nothing, rows), np.zeros(6))


@pytest.mark.parametrize("aimed", [False, True])
@pytest.mark.parametrize("folds", [2, 3, 10])
def test_a_row_is_held_out_of_the_gaussian_that_judges_it(folds, aimed):
  rows, _ = drawn_rows("many")
  moves, scale = (drawn_moves(rows), rows.std(axis=0)) if aimed else (None, None)
  want = []
  for at, row in enumerate(rows):
    others = np.array([r for to, r in enumerate(rows) if to % folds != at % folds])
    if aimed:
      precision, centre = dense(others, moves, scale)
      unit = (row - centre) / scale
      want.append(np.sqrt(unit @ precision @ unit))
    else:
      want.append(slow.mahalanobis(others, row[None])[0][0])
  distances = gaussian.held_out(rows, folds, moves, scale)
  np.testing.assert_allclose(distances, want, rtol=1e-7)


def test_rows_that_are_all_the_same_say_nothing():
  """Their mean differs from them in its last digit, which is no spread."""
  rng = np.random.default_rng(3)
  rows = np.repeat(rng.random((1, 5)), 24, axis=0)
  moves = rng.normal(size=(20, 5))
  for given in (None, moves):
    fitted = gaussian.fit(rows, given)
    far = gaussian.distance(fitted, rows[:1] + moves)
    np.testing.assert_array_equal(far, 0)
    assert np.isinf(fitted.scale).all()
