"""Thresholds: ranks by hand, and the false alarms that many drawn samples meet."""

import math

import numpy as np
import pytest
from scipy import stats

from nps_jax import verdict


def test_with_many_scores_the_threshold_is_one_of_them():
  """Of 399 the 396th: four of 400 are to be above, and it is one of the scores."""
  scores = np.random.default_rng(0).permutation(np.arange(1.0, 400))
  found = verdict.threshold(scores, 0.01)
  assert found.value == 396 and not found.fitted
  # 90 % certain: the ranks between which the count below has 90 % of its chance.
  chances = stats.binom.cdf(np.arange(400), 399, 0.99)
  assert found.low == np.flatnonzero(chances >= 0.05)[0]
  assert found.high == min(399, np.flatnonzero(chances >= 0.95)[0])
  assert verdict.threshold(scores, 0.5).value == 200


def test_with_few_scores_a_tail_is_fitted_by_hand():
  """Two are above the lower half's 1, by 6 in sum; 3 of 5 are to be expected there."""
  found = verdict.threshold(np.array([5.0, 1.0, 1.0, 3.0]), 0.024)
  assert found.fitted
  assert found.value == pytest.approx(1 + 6 * (math.sqrt(25) - 1))
  low, high = (np.log(25) * 6 / stats.gamma.ppf(share, 2) for share in (0.95, 0.05))
  assert (found.low, found.high) == (pytest.approx(1 + low), pytest.approx(1 + high))


@pytest.mark.parametrize("count", [3, 6, 20, 60])
@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_few_exponential_scores_keep_the_promise_in_the_mean(count, rate):
  """What lies above any of exponential scores is exponential again: then exactly."""
  rng = np.random.default_rng(count)
  met = [
    np.exp(-max(0.0, verdict.threshold(rng.exponential(size=count), rate).value))
    for _ in range(4000)
  ]
  assert np.mean(met) == pytest.approx(rate, rel=0.15)


@pytest.mark.parametrize("draw", ["exponential", "normal", "lognormal"])
def test_many_scores_keep_the_promise_whatever_their_distribution(draw):
  rng = np.random.default_rng(1)
  kinds = {"exponential": stats.expon(), "normal": stats.norm()}
  kind = kinds.get(draw, stats.lognorm(1))
  scores = kind.rvs((2000, 299), random_state=rng)
  met = [kind.sf(verdict.threshold(row, 0.01).value) for row in scores]
  assert 0.009 < np.mean(met) < 0.011


def test_a_threshold_follows_the_scale_and_constant_scores_are_their_own():
  scores = np.random.default_rng(2).gamma(2, size=40)
  one, other = (verdict.threshold(factor * scores, 0.01) for factor in (1, 7))
  np.testing.assert_allclose(np.array(other[:3]), 7 * np.array(one[:3]))
  assert verdict.threshold(np.full(5, 3.0), 0.01)[:3] == (3, 3, 3)


@pytest.mark.parametrize(("scores", "rate"), [([], 0.1), ([1.0], 0.0), ([1.0], 1.0)])
def test_what_allows_no_threshold_is_refused(scores, rate):
  with pytest.raises(
    ValueError, match=f"{len(scores)} normal scores and a false-alarm"
  ):
    verdict.threshold(np.array(scores), rate)


def test_percentiles_by_hand():
  normal = np.array([1.0, 2.0, 2.0, 4.0])
  assert [verdict.percentile(normal, at) for at in (0.0, 1.0, 2.0, 9.0)] == [
    0,
    25,
    75,
    100,
  ]


def test_many_false_alarms_surprise():
  """At 1 in 100, three of 60 have a chance of 0.02, four one of 0.003."""
  assert [verdict.is_surprising(alarms, 60) for alarms in (0, 3, 4)] == [0, 0, 1]
