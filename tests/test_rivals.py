"""The rivals of the benchmark against slow float64 forms of them."""

import json

import numpy as np
import pytest
import runs
import slow

from nps_jax import checkpoints
from nps_jax import evaluate
from nps_jax import rivals


def drawn(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def levels(seed: int, count: int) -> dict[int, np.ndarray]:
  return {3: drawn(seed, count, 6, 8, 5), 4: drawn(seed + 1, count, 3, 4, 7)}


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
  monkeypatch.setattr(rivals, "CANDIDATES", candidates)
  monkeypatch.setattr(rivals, "ROUND", rounds)
  rivals._farthest.clear_cache()
  rows = drawn(0, 120, 5)
  found = rivals.coreset(rows, 40, 3)
  assert found.tolist() == farthest(rows, 40, found[0])
  assert rivals.coreset(rows, 1, 3).tolist() == [found[0]]
  assert rivals.coreset(rows, 1, 4)[0] != found[0]


def test_a_wide_coreset_is_chosen_in_fewer_dimensions():
  """The few far rows are found all the same; the exact greedy choice names them."""
  rows = drawn(0, 60, 2 * rivals.PROJECTED)
  rows[:5] *= 9
  found = rivals.coreset(rows, 6, 0)
  assert set(farthest(rows, 6, found[0])[1:]) == set(found[1:]) == set(range(5))


def slow_patches(held: dict[int, np.ndarray]) -> np.ndarray:
  """3 x 3 means with repeated edges; the coarser level is doubled, bilinear."""
  parts = []
  for feats in held.values():
    padded = np.pad(np.float64(feats), ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    n, h, w, _ = feats.shape
    windows = [padded[:, y : y + h, x : x + w] for y in range(3) for x in range(3)]
    mean = np.mean(windows, axis=0)
    for axis, size in ((1, 6), (2, 8)):
      if mean.shape[axis] != size:
        mean = np.moveaxis(doubled(np.moveaxis(mean, axis, 0)), 0, axis)
    parts.append(mean)
  return np.concatenate(parts, axis=-1).reshape(n * 48, -1)


def doubled(rows: np.ndarray) -> np.ndarray:
  """Bilinear to twice as many rows: three quarters of one, a quarter of the next."""
  before, after = [np.roll(rows, shift, axis=0) for shift in (1, -1)]
  before[0], after[-1] = rows[0], rows[-1]
  pairs = [0.75 * rows + 0.25 * before, 0.75 * rows + 0.25 * after]
  return np.stack(pairs, axis=1).reshape(2 * len(rows), *rows.shape[1:])


def test_patches_are_means_of_every_level_side_by_side():
  held = levels(0, 3)
  np.testing.assert_allclose(
    rivals.patches(held), slow_patches(held), rtol=1e-5, atol=1e-6
  )


def test_the_memory_s_map_is_the_distance_to_its_nearest_patch(root):
  config = runs.config(root, scoring__smoothing=0.0)
  normal, test = levels(0, 4), levels(5, 2)
  found = rivals.memory_maps(normal, test, (6, 8), config)
  rows = slow_patches(normal)
  kept = rows[rivals.coreset(rivals.patches(normal), 19, config.seed)]
  gaps = [[np.linalg.norm(kept - row, axis=1).min()] for row in slow_patches(test)]
  np.testing.assert_allclose(found, np.reshape(gaps, (2, 6, 8)), rtol=1e-4)


def test_the_gaussian_is_of_each_channel_s_mean_and_spread():
  normal, test = levels(0, 30), levels(5, 4)

  def moments(held):
    parts = []
    for feats in held.values():
      flat = np.float64(feats).reshape(len(feats), -1, feats.shape[-1])
      parts += [flat.mean(axis=1), flat.std(axis=1)]
    return np.concatenate(parts, axis=1)

  want, _ = slow.mahalanobis(moments(normal), moments(test))
  np.testing.assert_allclose(rivals.gaussian_scores(normal, test), want, rtol=1e-4)


@pytest.mark.parametrize("name", ["patch-memory", "pooled-gaussian"])
def test_a_rival_s_results_are_those_of_a_run(root, tmp_path, name, capsys):
  config = runs.config(root, data__category="tray")
  rivals.run(name, config, tmp_path)
  (found,) = json.loads((tmp_path / evaluate.RESULTS).read_text())
  assert found["category"] == "tray" and 0 <= found["image_auroc"]["pooled"] <= 1
  mapped = name == "patch-memory"
  assert (found["au_spro"] is not None) == (found["pixel_auroc"] is not None) == mapped
  assert checkpoints.read_description(tmp_path).config.seed == config.seed
  assert "tray" in capsys.readouterr().out
