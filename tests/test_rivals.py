"""The rivals of the benchmark against slow float64 forms of them."""

import json

import numpy as np
import pytest
import runs
import slow

from nps_jax.models import memory
from nps_jax.runs import description
from nps_jax.runs import files
from nps_jax.study import rivals


def drawn(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def levels(seed: int, count: int) -> dict[int, np.ndarray]:
  return {3: drawn(seed, count, 6, 8, 5), 4: drawn(seed + 1, count, 3, 4, 7)}


def test_the_memory_s_map_is_the_distance_to_its_nearest_patch(root):
  config = runs.config(root, scoring__smoothing=0.0)
  normal, test = levels(0, 4), levels(5, 2)
  found = rivals.memory_maps(normal, test, (6, 8), config)
  rows = slow.patches(normal).reshape(-1, 12)
  chosen = memory.coreset(np.float32(rows), 19, config.seed)
  judged = slow.patches(test).reshape(-1, 12)
  gaps = [np.linalg.norm(rows[chosen] - row, axis=1).min() for row in judged]
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
  (found,) = json.loads((tmp_path / files.RESULTS).read_text())
  assert found["category"] == "tray" and 0 <= found["image_auroc"]["pooled"] <= 1
  mapped = name == "patch-memory"
  assert (found["au_spro"] is not None) == (found["pixel_auroc"] is not None) == mapped
  assert description.read(tmp_path).config.seed == config.seed
  assert "tray" in capsys.readouterr().out
