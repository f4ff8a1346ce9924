"""The vocabulary of scenes against slow float64 forms of it."""

import jax.numpy as jnp
import numpy as np

from nps_jax.models import counts


def drawn(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def slow_scenes(feats: np.ndarray) -> np.ndarray:
  unit = np.float64(feats)
  unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
  means = np.zeros_like(unit)
  for b, y, x in np.ndindex(unit.shape[:3]):
    rows, columns = slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)
    means[b, y, x] = unit[b, rows, columns].reshape(-1, unit.shape[-1]).mean(axis=0)
  return means


def test_scenes_are_means_of_the_cells_around_at_length_1():
  feats = drawn(0, 2, 4, 5, 6)
  scenes = counts.scenes(jnp.asarray(feats))
  np.testing.assert_allclose(scenes, slow_scenes(feats), rtol=1e-5, atol=1e-6)


def test_belonging_is_soft_in_the_squared_distance_to_codes():
  feats, codes = drawn(1, 2, 3, 4, 6), drawn(2, 7, 6) / 3
  vocabulary = counts.Vocabulary(jnp.asarray(codes), jnp.float32(0.3))
  belonging = counts.belonging(jnp.asarray(feats), vocabulary)
  gaps = np.square(slow_scenes(feats)[..., None, :] - codes).sum(axis=-1)
  soft = np.exp(-gaps / 0.3)
  want = soft / soft.sum(axis=-1, keepdims=True)
  np.testing.assert_allclose(belonging, want, rtol=1e-4, atol=1e-6)


def clusters(count: int, each: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
  """Points close around far centres, the first of which has a tenth of the points."""
  rng = np.random.default_rng(seed)
  centres = 10 * rng.normal(size=(count, 4))
  owner = np.repeat(np.arange(count), [each // 10, *[each] * (count - 1)])
  points = centres[owner] + 0.1 * rng.normal(size=(len(owner), 4))
  return points.astype(np.float32), owner


def test_each_cluster_of_scenes_finds_its_code_and_rare_ones_too():
  points, owner = clusters(6, 200)
  vocabulary = counts.learn(points, 6, 0)
  means = np.stack([np.float64(points[owner == own]).mean(axis=0) for own in range(6)])
  gaps = np.linalg.norm(vocabulary.codes[:, None] - means[None], axis=-1)
  assert sorted(gaps.argmin(axis=1).tolist()) == list(range(6))
  assert gaps.min(axis=1).max() < 1e-4
  spread = np.square(points - means[owner]).sum(axis=1).mean()
  np.testing.assert_allclose(vocabulary.gap, spread, rtol=1e-3)


def test_codes_are_the_means_of_what_is_nearest_to_them():
  """A fixed point of Lloyd's algorithm, where it has come to rest."""
  points = drawn(5, 300, 3)
  codes = np.float64(counts.learn(points, 4, 1).codes)
  for _ in range(300):
    owner = np.square(points[:, None] - codes[None]).sum(axis=-1).argmin(axis=1)
    codes = np.stack([points[owner == own].mean(axis=0) for own in range(4)])

  def cost(codes: np.ndarray) -> float:
    return np.square(points[:, None] - codes[None]).sum(axis=-1).min(axis=1).mean()

  vocabulary = counts.learn(points, 4, 1)
  assert cost(codes) <= cost(vocabulary.codes) < 1.05 * cost(codes)


def test_fewer_codes_where_scenes_repeat_and_a_seed_decides():
  points = np.tile(drawn(6, 3, 4), (20, 1))
  vocabulary = counts.learn(points, 10, 0)
  assert len(vocabulary.codes) == 3 and vocabulary.gap < 1e-6
  several = drawn(7, 500, 4)
  first, again, other = (counts.learn(several, 8, seed).codes for seed in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 0.01


def test_a_sample_of_many_scenes_is_enough(monkeypatch):
  monkeypatch.setattr(counts, "SAMPLE", 400)
  points, owner = clusters(4, 1000)
  codes = counts.learn(points, 4, 0).codes
  means = np.stack([points[owner == own].mean(axis=0) for own in range(4)])
  gaps = np.linalg.norm(codes[:, None] - means[None], axis=-1)
  assert gaps.min(axis=1).max() < 0.1
