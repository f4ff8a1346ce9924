"""The memory of normal patches against slow float64 forms of it."""

import jax.numpy as jnp
import numpy as np
import pytest
import slow

from nps_jax import inference
from nps_jax import scoring
from nps_jax import stored
from nps_jax.data import decoding
from nps_jax.data import folder
from nps_jax.models import memory


def drawn(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def farthest(rows: np.ndarray, count: int, first: int) -> list[int]:
  """Greedy choice by loops: always the row farthest from all chosen."""
  rows, chosen = np.float64(rows), [first]
  while len(chosen) < count:
    gaps = [min(np.sum((row - rows[at]) ** 2) for at in chosen) for row in rows]
    chosen.append(int(np.argmax(gaps)))
  return chosen


@pytest.mark.parametrize("candidates", [3, 17, 500])
@pytest.mark.parametrize("rounds", [4, 512])
def test_the_coreset_is_the_greedy_one(monkeypatch, candidates, rounds):
  monkeypatch.setattr(memory, "CANDIDATES", candidates)
  monkeypatch.setattr(memory, "ROUND", rounds)
  memory._farthest.clear_cache()
  rows = drawn(0, 120, 5)
  found = memory.coreset(rows, 40, 3)
  assert found.tolist() == farthest(rows, 40, found[0])
  assert memory.coreset(rows, 1, 3).tolist() == [found[0]]
  assert memory.coreset(rows, 1, 4)[0] != found[0]


def test_repeated_rows_are_chosen_once(monkeypatch):
  passes = []
  real = memory._nearer
  monkeypatch.setattr(memory, "_nearer", lambda *a: passes.append(0) or real(*a))
  rows = drawn(0, 7, 100)  # wider than PROJECTED
  found = memory.coreset(np.tile(rows, (300, 1)), 210, 0)
  assert sorted(found % 7) == list(range(7))
  assert len(passes) < 5
  assert len(memory.coreset(np.zeros((50, 3), np.float32), 20, 0)) == 1


def test_patches_that_are_not_finite_are_refused():
  with pytest.raises(ValueError, match="not finite in float16"):
    memory.coreset(np.float16([(0, 1), (np.inf, 2)]), 1, 0)


def test_a_wide_coreset_is_chosen_in_fewer_dimensions():
  """The few far rows are found all the same; the exact greedy choice names them."""
  rows = drawn(0, 60, 2 * memory.PROJECTED)
  rows[:5] *= 9
  found = memory.coreset(rows, 6, 0)
  assert set(farthest(rows, 6, found[0])[1:]) == set(found[1:]) == set(range(5))


def test_patches_are_means_of_every_level_side_by_side():
  held = {3: drawn(0, 3, 6, 8, 5), 4: drawn(1, 3, 3, 4, 7)}
  found = memory.patches({level: jnp.asarray(each) for level, each in held.items()})
  np.testing.assert_allclose(found, slow.patches(held), rtol=1e-5, atol=1e-6)


def test_the_distance_is_to_the_nearest_patch_of_the_memory():
  rows, held = drawn(2, 3, 4, 5, 6), drawn(3, 17, 6)
  found = memory.distance(jnp.asarray(rows), memory.remember(held))
  gaps = np.linalg.norm(np.float64(rows)[..., None, :] - held, axis=-1).min(axis=-1)
  np.testing.assert_allclose(found, gaps, rtol=1e-5)
  at_once = memory.distance(jnp.asarray(held[None, None]), memory.remember(held))
  np.testing.assert_array_equal(at_once, 0)


@pytest.mark.parametrize(("tile", "queries"), [(64, 12), (256, 4096), (8192, 4096)])
def test_among_many_patches_the_nearest_is_found_or_one_hardly_farther(
  monkeypatch, tile, queries
):
  """Patches of 40 numbers in few directions, with a little of all others."""
  monkeypatch.setattr(memory, "TILE", {"cpu": tile})
  monkeypatch.setattr(memory, "EXACT", {"cpu": queries // 2})
  monkeypatch.setattr(memory, "QUERIES", queries)
  rng = np.random.default_rng(5)
  mixing = rng.normal(size=(12, 40)) / np.arange(1, 13)[:, None]
  held = np.float32(drawn(6, 5000, 12) @ mixing + 0.05 * drawn(7, 5000, 40))
  rows = np.float32(drawn(8, 2, 6, 7, 12) @ mixing + 0.05 * drawn(9, 2, 6, 7, 40))
  found = np.asarray(memory.distance(jnp.asarray(rows), memory.remember(held)))
  gaps = np.linalg.norm(np.float64(rows)[..., None, :] - held, axis=-1).min(axis=-1)
  excess = found / gaps - 1
  assert excess.min() > -1e-5
  want = slow.candidate_gaps(rows, held)
  np.testing.assert_allclose(np.median(found / want), 1, rtol=1e-6)
  assert np.mean(np.abs(found / want - 1) < 1e-5) > 0.98  # else candidates nearly tied
  assert np.mean(excess < 1e-5) > 0.95 and excess.max() < 0.05


@pytest.mark.parametrize("tile", [16, 256])
def test_an_image_s_own_patches_are_passed_over(monkeypatch, tile):
  monkeypatch.setattr(memory, "TILE", {"cpu": tile})
  rows, known = drawn(2, 3, 4, 5, 6), drawn(3, 50, 6)
  owners = np.random.default_rng(4).integers(0, 3, 50)
  own = jnp.asarray([2, 0, 7])
  gaps = memory.distance(jnp.asarray(rows), memory.remember(known, owners), own)
  far = np.linalg.norm(np.float64(rows)[..., None, :] - known, axis=-1)
  others = np.where(owners == np.asarray(own)[:, None, None, None], np.inf, far)
  np.testing.assert_allclose(gaps, others.min(axis=-1), rtol=1e-5)
  assert (np.asarray(gaps)[:2] > far[:2].min(axis=-1) + 1e-3).any()
  alone = memory.distance(jnp.asarray(rows), memory.remember(known, 0 * owners), own)
  assert np.asarray(alone)[1].min() > 1e14 > np.asarray(alone)[2].max()


def test_a_run_remembers_its_training_images_and_maps_the_distance(run, root):
  data = folder.open_category(root, "tray")
  priors = run.calibrations["tray"].priors
  held = priors.memory.patches
  known, judged = (
    patches(run, np.stack([decoding.decode(record, (64, 64)) for record in images]))
    for images in (data.train, data.test[:3])
  )
  assert held.shape == (round(0.1 * 12 * 8 * 8), 128 + 256)
  assert held.dtype == "float16"
  scale = np.abs(known).max()
  for row in np.float64(held[::7]):  # float16 of one of them
    gaps = np.abs(known.reshape(-1, len(row)) - row)
    assert gaps.max(axis=1).min() < 1e-3 * scale
  want = np.float32(slow.candidate_gaps(judged, held))
  grid = scoring.on_grid(jnp.asarray(want), (16, 16))
  only = scoring.Priors(memory=priors.memory)
  raw = inference.collect(run, data.test[:3], "tray", only)
  np.testing.assert_allclose(raw.maps["memory"], grid, rtol=2e-3, atol=1e-3 * scale)

  again = stored.load(run.folder / inference.CALIBRATION, "")["tray"]
  np.testing.assert_array_equal(again.priors.memory.patches, held)
  assert set(run.calibrations["tray"].mean) == {"memory", "layout", "reconstruction"}


def patches(run, pixels):
  """Slow patches of the encoder's levels."""
  feats = run.model.features(run.frozen["encoder"], jnp.asarray(pixels))
  return slow.patches({level: np.float64(feats[level]) for level in (3, 4)})
