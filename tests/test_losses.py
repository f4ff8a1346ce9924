"""Distances between feature maps against float64 loops, by hand, and their slopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax import allowed
from nps_jax import config as settings
from nps_jax import losses

CLOSE = {"rtol": 1e-5, "atol": 1e-6}
SHAPES = {2: (2, 3, 4, 5), 3: (2, 2, 2, 3)}


def drawn(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def slow_unit(vector: np.ndarray) -> np.ndarray:
  """A vector at length 1; one shorter than 1e-6 is multiplied by a million."""
  vector = np.float64(vector)
  return vector / max(np.sqrt(sum(each**2 for each in vector)), 1e-6)


def slow_cosine(target: np.ndarray, rebuilt: np.ndarray) -> float:
  return 1 - sum(slow_unit(target) * slow_unit(rebuilt))


def slow_mse(target: np.ndarray, rebuilt: np.ndarray) -> float:
  return sum((slow_unit(target) - np.float64(rebuilt)) ** 2)


def slow_map(measure, target: np.ndarray, rebuilt: np.ndarray) -> np.ndarray:
  """The measure of each pair of features [b h w d]."""
  found = np.zeros(target.shape[:-1])
  for place in np.ndindex(*found.shape):
    found[place] = measure(target[place], rebuilt[place])
  return found


def slow_gap(target, rebuilt, distance: str) -> np.ndarray:
  """Each image's mean over positions, added up over the levels."""
  total = np.zeros(2)
  for level in target:
    for row in range(2):
      one, other = target[level][row], rebuilt[level][row]
      if distance == "cosine_flat":
        total[row] += slow_cosine(one.ravel(), other.ravel())
      else:
        measure = {"cosine": slow_cosine, "mse": slow_mse}[distance]
        pairs = zip(np.vstack(one), np.vstack(other), strict=True)
        total[row] += np.mean([measure(*pair) for pair in pairs])
  return total


def levels(seed: int) -> dict[int, np.ndarray]:
  """Two levels of different grids, widths and magnitudes."""
  return {level: level * drawn(seed + level, *SHAPES[level]) for level in SHAPES}


def slope(function, at: np.ndarray, step: float = 1e-6) -> np.ndarray:
  """Central differences of a float64 function of one array."""
  at = np.float64(at)
  found = np.zeros(at.shape)
  for place in np.ndindex(*at.shape):
    up, down = at.copy(), at.copy()
    up[place] += step
    down[place] -= step
    found[place] = (function(up) - function(down)) / (2 * step)
  return found


def total(target, rebuilt, distance):
  """The loss of each image: the levels' distances summed."""
  return sum(losses.feature_gap(target, rebuilt, distance).values())


def test_unit_agrees_with_float64():
  feats = drawn(0, 2, 3, 4, 5) * 50
  feats[0, 0, 0], feats[1, 2, 3] = 0, 1e-9
  found = np.asarray(losses.unit(jnp.asarray(feats)))
  want = np.apply_along_axis(slow_unit, -1, feats)
  np.testing.assert_allclose(found, want, **CLOSE)
  lengths = np.linalg.norm(np.float64(found), axis=-1)
  assert lengths[0, 0, 0] == 0
  assert 0 < lengths[1, 2, 3] < 0.01
  np.testing.assert_allclose(np.sort(lengths.ravel())[2:], 1, rtol=1e-6)


@pytest.mark.parametrize(
  ("measure", "slow"),
  [(losses.distance_map, slow_cosine), (losses.squared_map, slow_mse)],
)
def test_maps_agree_with_float64(measure, slow):
  target, rebuilt = drawn(1, 2, 3, 4, 5) * 7, drawn(2, 2, 3, 4, 5)
  target[0, 1, 2] = 0
  rebuilt[1, 0, 3] = 0
  found = measure(jnp.asarray(target), jnp.asarray(rebuilt))
  np.testing.assert_allclose(found, slow_map(slow, target, rebuilt), **CLOSE)


def test_maps_by_hand():
  """Equal, opposite, at right angles, at 60 degrees, and one that is zero."""
  target = jnp.float32([[[[3, 4], [3, 4], [3, 4], [2, 0], [3, 4]]]])
  tall = np.sqrt(3)
  rebuilt = jnp.float32([[[[6, 8], [-3, -4], [-8, 6], [1, tall], [0, 0]]]])
  cosine = losses.distance_map(target, rebuilt)
  np.testing.assert_allclose(cosine, [[[0, 2, 1, 0.5, 1]]], atol=1e-6)
  # The target is (0.6, 0.8), or (1, 0); the rebuilt feature is taken as it is.
  squared = losses.squared_map(target, rebuilt)
  np.testing.assert_allclose(squared, [[[81, 36, 101, 3, 1]]], rtol=1e-6)


@pytest.mark.parametrize("distance", losses.DISTANCES)
def test_gap_map_is_the_map_that_is_asked_for(distance):
  target, rebuilt = drawn(3, 1, 2, 3, 4), drawn(4, 1, 2, 3, 4)
  found = losses.gap_map(jnp.asarray(target), jnp.asarray(rebuilt), distance)
  measure = slow_mse if distance == "mse" else slow_cosine
  np.testing.assert_allclose(found, slow_map(measure, target, rebuilt), **CLOSE)


@pytest.mark.parametrize("distance", losses.DISTANCES)
def test_feature_gap_agrees_with_float64(distance):
  target, rebuilt = levels(10), levels(20)
  found = total(
    jax.tree.map(jnp.asarray, target), jax.tree.map(jnp.asarray, rebuilt), distance
  )
  np.testing.assert_allclose(found, slow_gap(target, rebuilt, distance), **CLOSE)


def test_feature_gap_is_a_mean_over_positions_level_by_level():
  """Three quarters of a level at 0 and a quarter at 2, then a level at 1."""
  one = jnp.ones((1, 2, 2, 2))
  turned = one.at[0, 1, 1].multiply(-1)
  across = jnp.ones((1, 3, 1, 2)) * jnp.float32([[[[1, -1]]]])
  target, rebuilt = {2: one, 4: jnp.ones((1, 3, 1, 2))}, {2: turned, 4: across}
  found = losses.feature_gap(target, rebuilt, "cosine")
  assert list(found) == [2, 4]
  np.testing.assert_allclose([found[2], found[4]], [[2 / 4], [1]], rtol=1e-6)
  flat = losses.feature_gap(target, rebuilt, "cosine_flat")
  np.testing.assert_allclose([flat[2], flat[4]], [[1 - (6 - 2) / 8], [1]], rtol=1e-6)


@pytest.mark.parametrize("distance", losses.DISTANCES)
def test_only_the_rebuilt_levels_are_compared(distance):
  """The encoder may have more levels than the decoder rebuilds, and in any order."""
  target, rebuilt = levels(30), levels(40)
  some = {3: rebuilt[3]}
  more = {3: jnp.asarray(target[3]), 2: jnp.asarray(target[2])}
  found = total(more, {3: jnp.asarray(rebuilt[3])}, distance)
  want = slow_gap({3: target[3]}, some, distance)
  np.testing.assert_allclose(found, want, **CLOSE)


@pytest.mark.parametrize("distance", losses.DISTANCES)
def test_rows_do_not_mix(distance):
  target, rebuilt = levels(50), levels(60)

  def gap(rebuilt):
    given = jax.tree.map(jnp.asarray, (target, rebuilt))
    return np.asarray(total(*given, distance))

  before = gap(rebuilt)
  changed = {level: feats.copy() for level, feats in rebuilt.items()}
  changed[3][1] += 1e3
  after = gap(changed)
  assert after[0] == before[0]
  assert abs(after[1] - before[1]) > 0.01


@pytest.mark.parametrize("distance", losses.DISTANCES)
def test_gradients_agree_with_finite_differences(distance):
  target, rebuilt = levels(70), levels(80)
  pull = np.array([1.0, -2.0])

  def objective(rebuilt):
    gap = total(jax.tree.map(jnp.asarray, target), rebuilt, distance)
    return jnp.sum(gap * jnp.float32(pull))

  found = jax.grad(objective)(jax.tree.map(jnp.asarray, rebuilt))
  for level in SHAPES:

    def slow(feats, level=level):
      return np.sum(slow_gap(target, rebuilt | {level: feats}, distance) * pull)

    np.testing.assert_allclose(found[level], slope(slow, rebuilt[level]), **CLOSE)


@pytest.mark.parametrize("distance", losses.DISTANCES)
def test_zero_features_have_the_slope_of_the_floored_length(distance):
  """Finite, though not small: lengths below 1e-6 count as 1e-6."""
  zero, other = np.zeros((2, 1, 1, 3), np.float32), drawn(90, 2, 1, 1, 3)

  def pair(target, rebuilt):
    return jnp.sum(total({2: target}, {2: rebuilt}, distance))

  def slow(target, rebuilt):
    return np.sum(slow_gap({2: target}, {2: rebuilt}, distance))

  for target, rebuilt in ((zero, other), (other, zero), (zero, zero)):
    found = jax.grad(pair, argnums=(0, 1))(jnp.asarray(target), jnp.asarray(rebuilt))
    want = (
      slope(lambda feats, held=rebuilt: slow(feats, held), target, 1e-9),
      slope(lambda feats, held=target: slow(held, feats), rebuilt, 1e-9),
    )
    for got, expected in zip(found, want, strict=True):
      assert np.isfinite(got).all()
      np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_large_features_keep_their_direction():
  feats = jnp.full((1, 1, 2, 3), 1e12)
  np.testing.assert_allclose(losses.unit(feats), 3**-0.5, rtol=1e-6)
  np.testing.assert_allclose(losses.distance_map(feats, -feats), [[[2, 2]]], rtol=1e-6)


def test_unknown_distances_are_refused():
  target = {2: jnp.ones((1, 1, 1, 2))}
  with pytest.raises(
    ValueError,
    match=r"config\.loss\.distance is 'l1'; expected one of \('cosine', 'mse', 'cosi",
  ):
    total(target, target, "l1")


def test_every_distance_is_one_that_the_config_allows():
  for distance in losses.DISTANCES:
    config = settings.defaults()
    config.loss.distance = distance
    allowed.validate(config)
