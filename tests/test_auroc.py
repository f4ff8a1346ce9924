"""AUROC and its bootstrap against the definition, pair by pair."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from nps_jax.metrics import auroc

SCORES = st.lists(st.integers(-4, 4), min_size=1, max_size=20).map(np.float64)


def slow_auroc(good, bad):
  won = sum((b > g) + 0.5 * (b == g) for b in bad for g in good)
  return won / (len(good) * len(bad))


@settings(deadline=None, max_examples=60)
@given(SCORES, SCORES)
def test_agrees_with_brute_force_under_ties(good, bad):
  assert auroc.auroc(good, bad) == pytest.approx(slow_auroc(good, bad), abs=1e-14)


@settings(deadline=None, max_examples=30)
@given(SCORES, SCORES, st.integers(0, 99), st.sampled_from([1, 64, 2**22]))
def test_each_bootstrap_sample_has_its_own_auroc(good, bad, seed, block):
  rng = np.random.default_rng(seed)
  draws = [rng.integers(0, each.size, (7, each.size)) for each in (good, bad)]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(auroc, "BLOCK", block)
    got = auroc.resampled(good, bad, *draws)
  want = [slow_auroc(good[one], bad[two]) for one, two in zip(*draws, strict=True)]
  np.testing.assert_allclose(got, want, atol=1e-14)


@settings(deadline=None, max_examples=40)
@given(SCORES, SCORES)
def test_increasing_transforms_and_swapped_sides(good, bad):
  want = auroc.auroc(good, bad)
  assert auroc.auroc(np.exp(good), np.exp(bad)) == want
  assert auroc.auroc(bad, good) == pytest.approx(1 - want, abs=1e-14)


def test_hand_values():
  good, bad = np.array([0.1, 0.4, 0.35]), np.array([0.8, 0.4])
  assert auroc.auroc(good, bad) == 5.5 / 6
  assert auroc.auroc(good, np.array([1.0])) == 1.0
  assert auroc.auroc(good, np.array([-1.0])) == 0.0
  assert auroc.auroc(np.ones(3), np.ones(4)) == 0.5


def test_close_scores_are_told_apart_in_their_own_precision():
  low, high = np.float64([1.0]), np.float64([1.0 + 2.0**-50])
  assert auroc.auroc(low, high) == 1.0
  assert auroc.auroc(np.float32(low), np.float32(high)) == 0.5


def test_unusable_scores_are_refused():
  some = np.ones(2)
  with pytest.raises(ValueError, match="no good scores; both good and bad"):
    auroc.auroc(np.zeros(0), some)
  with pytest.raises(ValueError, match="no bad scores"):
    auroc.auroc(some, np.zeros(0))
  with pytest.raises(ValueError, match="bad scores hold NaN or infinity"):
    auroc.auroc(some, np.array([np.nan]))
  draws = np.zeros((3, 1), np.int64)
  with pytest.raises(ValueError, match="good scores hold NaN or infinity"):
    auroc.resampled(np.array([np.inf]), np.ones(1), draws, draws)
