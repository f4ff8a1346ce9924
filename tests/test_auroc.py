"""AUROC and average precision against their definitions, pair by pair."""

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


def slow_average_precision(good, bad):
  total, recall = 0.0, 0.0
  for threshold in sorted({*good, *bad}, reverse=True):
    true, false = np.sum(bad >= threshold), np.sum(good >= threshold)
    total += (true / len(bad) - recall) * true / (true + false)
    recall = true / len(bad)
  return total


@settings(deadline=None, max_examples=60)
@given(SCORES, SCORES)
def test_both_agree_with_brute_force_under_ties(good, bad):
  assert auroc.auroc(good, bad) == pytest.approx(slow_auroc(good, bad), abs=1e-14)
  got = auroc.average_precision(good, bad)
  assert got == pytest.approx(slow_average_precision(good, bad), abs=1e-14)


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
  assert auroc.average_precision(good, bad) == pytest.approx((1 + 2 / 3) / 2)


def test_close_scores_are_told_apart_in_their_own_precision():
  low, high = np.float64([1.0]), np.float64([1.0 + 2.0**-50])
  assert auroc.auroc(low, high) == 1.0
  assert auroc.auroc(np.float32(low), np.float32(high)) == 0.5


@pytest.mark.parametrize("measure", [auroc.auroc, auroc.average_precision])
def test_unusable_scores_are_refused(measure):
  some = np.ones(2)
  with pytest.raises(ValueError, match="no good scores; both good and bad"):
    measure(np.zeros(0), some)
  with pytest.raises(ValueError, match="no bad scores"):
    measure(some, np.zeros(0))
  with pytest.raises(ValueError, match="bad scores hold NaN or infinity"):
    measure(some, np.array([np.nan]))
  with pytest.raises(ValueError, match="good scores hold NaN or infinity"):
    measure(np.array([np.inf]), some)
