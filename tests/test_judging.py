"""The learned weights: the optimum of a convex loss, and what it does with sources."""

import numpy as np
import pytest
from scipy import special

from nps_jax import judging


def test_the_slopes_are_the_optimum_of_the_loss():
  """At the optimum no slope can move: flat where above 0, rising where at 0."""
  rng = np.random.default_rng(0)
  signs = np.where(rng.uniform(size=400) < 0.3, 1.0, -1.0)
  evidence = rng.uniform(0, 2, (400, 4)) + np.outer(signs, [0.5, 0.2, 0.0, -0.4])
  shares = rng.uniform(size=400)
  shares /= shares.sum()
  slopes = judging.logistic(evidence, signs, shares)
  assert slopes.min() >= 0 and slopes[3] == 0 and slopes[0] > slopes[1] > 0

  def slope(offset: float) -> np.ndarray:
    margin = signs * (evidence @ slopes + offset)
    pull = -shares * signs * special.expit(-margin)
    return np.append(evidence.T @ pull + 2 * judging.RIDGE * slopes, pull.sum())

  low, high = -20.0, 20.0  # the offset, which has no ridge, by halving
  for _ in range(100):
    middle = (low + high) / 2
    low, high = (middle, high) if slope(middle)[-1] < 0 else (low, middle)
  rises = slope(low)
  np.testing.assert_allclose(rises[:3][slopes[:3] > 0], 0, atol=1e-4)
  assert rises[3] > 0


def scenes(seed: int, count: int = 30) -> tuple[dict, dict, np.ndarray]:
  """A source that sees what is edited, one that sees half of it, one that is noise."""
  rng = np.random.default_rng(seed)
  normal = {
    name: 0.1 * rng.normal(size=(count, 16, 16)) for name in ("good", "fair", "noise")
  }
  masks = np.zeros((count, 16, 16), bool)
  edited = {name: 0.1 * rng.normal(size=(count, 16, 16)) for name in normal}
  for image in range(count):
    y, x = rng.integers(0, 12, 2)
    masks[image, y : y + 4, x : x + 4] = True
    edited["good"][image][masks[image]] += 0.4
    if image % 2:
      edited["fair"][image][masks[image]] += 0.4
  return normal, edited, masks


def test_what_sees_the_edits_weighs_and_what_does_not_weighs_next_to_nothing():
  weights = judging.of_maps(*scenes(1))
  assert list(weights) == ["good", "fair", "noise"]
  assert weights["good"] > weights["fair"] > 0.2 > weights["noise"] >= 0
  np.testing.assert_allclose(sum(weights.values()), 3)
  again = judging.of_maps(*scenes(1))
  assert again == weights


def test_what_makes_the_map_find_fewer_edits_leaves_it_unless_it_is_spared():
  """Its false peaks are rare, so that the regression alone would give it weight."""
  normal, edited, masks = scenes(5)
  rng = np.random.default_rng(5)
  for maps, touched in ((normal, np.zeros_like(masks)), (edited, masks)):
    wild = np.where(rng.uniform(size=masks.shape) < 0.03, 3.0, 0.0)
    maps["wild"] = np.where(touched, 0.1, wild)
  spared = judging.of_maps(normal, edited, masks, spared=("wild",))
  assert spared["wild"] > 0.05
  weights = judging.of_maps(normal, edited, masks)
  assert weights["wild"] == 0 < weights["fair"] < weights["good"]
  np.testing.assert_allclose(sum(weights.values()), 4)
  found = [judging.overlap(w, normal, edited, masks) for w in (spared, weights)]
  assert found[0] < found[1]


def test_the_overlap_by_hand():
  """Two edits, of which a map finds the one before any false alarm, the other never."""
  masks = np.zeros((2, 10, 10), bool)
  masks[0, :2], masks[1, 5:] = True, True
  edited = {"one": np.where(masks[:1], 2.0, 0.0).repeat(2, axis=0)}
  edited["one"][1] = np.where(masks[1], -1.0, 0.0)
  normal = {"one": np.zeros((3, 10, 10))}
  # At once 0.5, and from there a straight line to 0.5 where all normal cells are false.
  assert judging.overlap({"one": 3.0}, normal, edited, masks) == pytest.approx(0.5)


def test_evidence_beyond_clear_says_no_more():
  """So one edit that shines does not outweigh many that are seen."""
  normal, edited, masks = scenes(2)
  before = judging.of_maps(normal, edited, masks)
  edited["good"][masks & (edited["good"] > 0.6)] *= 1e6
  np.testing.assert_allclose(
    list(judging.of_maps(normal, edited, masks).values()), list(before.values())
  )


def test_a_large_edit_weighs_as_much_as_a_small_one():
  normal, edited, masks = scenes(3)
  before = judging._regressed(normal, edited, masks)
  masks[0], masks[1] = True, False
  masks[1, 4, 4] = True
  for maps in edited.values():
    maps[0] = maps[2].mean()
  after = judging._regressed(normal, edited, masks)
  for name, weight in before.items():
    share = after[name] / sum(after.values())
    assert abs(share - weight / sum(before.values())) < 0.25 / 3


@pytest.mark.parametrize("how", ["nothing edited", "nobody sees"])
def test_without_evidence_the_weights_are_alike(how):
  normal, edited, masks = scenes(4)
  if how == "nothing edited":
    masks[:] = False
  else:
    edited = {name: np.full_like(maps, -1.0) for name, maps in edited.items()}
  assert set(judging.of_maps(normal, edited, masks).values()) == {1.0}
