"""What a training is expected to take: the laws, by hand."""

import math

import pytest
import runs

from nps_jax import estimating
from nps_jax.benchmarking import laws
from nps_jax.benchmarking import rates as measuring

RATES = measuring.Rates(
  **{"read": 2.0, "survey": 3.0, "edit": 5.0, "write": 7.0, "evaluate": 11.0},
  **{"encode": 13.0, "count": 17.0, "detect": 19.0, "judge": 23.0, "step": 29.0},
  **{"choose": 31.0, "remember": 37.0, "learn": 41.0, "gaussians": 43.0, "fit": 47.0},
  **{"compile_encoder": 53.0, "compile_step": 59.0, "compile_detector": 61.0},
  **{"places": 100, "pool": 400, "patch": 0.5, "kept": 8.0, "cells": 1.0},
  **{"working": 30.0, "state": 20.0, "base": 300.0, "own_memory": False},
)
NUTS = laws.Counts("nuts", train=4, validation=2, test=3, pixels=2**20)
BOLTS = laws.Counts("bolts", train=8, validation=2, test=0, pixels=2**20)


def config(**changes):
  settings = {"train__steps": 10, "train__batch_size": 8, "train__edits": 6}
  settings |= {"scoring__edits": 4, "codebook__memory": 0.1}
  return runs.config("", **(settings | changes))


def seconds(*counts, overlaps=False, rates=RATES, **changes):
  costs = laws.expected(config(**changes), counts, rates, overlaps=overlaps)
  return {part: cost.seconds for part, cost in costs.items()}


def test_the_seconds_are_the_work_counted_by_hand():
  """6 edits of 4 images: 2 of each; 4 edits of as many; 4 of 2 held-out images.

  All 4 training images are looked at as new ones, too.
  """
  found = seconds(NUTS)
  assert found["features"] == 53 + 9 * 2 + 4 * 3 + 8 * 5 + (4 + 8) * (13 + 2)
  assert found["train"] == 59 + 10 * 29 + (4 + 8) * 2 + 4 * 2
  passes = 4 * (13 + 2) + (4 + 4) * (17 + 2) + (2 + 4 + 4) * (19 + 2)
  chosen = 40 * (31 + 37) + 41  # a tenth of 400 patches, and the vocabulary
  edited = (4 * 3 + 4 * 5) + (2 * 3 + 4 * 5)
  scales = 43 + (2 + 4 + 4) * 47
  assert found["calibrate"] == 2 * (53 + 61) + passes + chosen + edited + scales
  assert found["evaluate"] == 3 * (19 + 2 + 23 + 11)
  assert found["predict"] == 19 + 2 + 23 + 7


def test_patches_cost_by_their_number_and_by_those_they_are_chosen_from():
  """Twice the images: twice the patches, each chosen from twice as many."""
  none = {"scoring__edits": 0, "train__edits": 0}
  rates = RATES._replace(**{name: 0.0 for name in RATES._fields[:10]})
  rates = rates._replace(remember=0.0, learn=0.0, gaussians=0.0, fit=0.0)
  rates = rates._replace(compile_encoder=0.0, compile_detector=0.0)
  small, large = (
    seconds(NUTS._replace(train=count), rates=rates, **none)["calibrate"]
    for count in (4, 8)
  )
  assert large == 4 * small == 4 * 40 * 31


def test_the_same_edits_are_made_once_and_categories_add_up():
  apart = seconds(NUTS, scoring__edits=5)["calibrate"]
  same = seconds(NUTS, scoring__edits=6)["calibrate"]
  # 8 copies in both; but of 2 held-out images 6 each time, and the surveys are saved.
  assert apart - same == 4 * 3 + 8 * 5
  alone, other, both = seconds(NUTS), seconds(BOLTS), seconds(NUTS, BOLTS)
  assert both["evaluate"] == alone["evaluate"] + other["evaluate"]
  assert both["features"] == alone["features"] + other["features"] - 53
  assert both["train"] - 59 - 290 == 2 * (12 + 4 + 14 + 8)


def test_features_that_do_not_fit_are_computed_in_each_step():
  found = seconds(NUTS, train__feature_cache=0.05)  # 12 images of 8 MiB: 96 MiB
  assert found["features"] == 9 * 2 + 4 * 3 + 8 * 5
  assert found["train"] == 59 + 10 * (29 + 2 * 8 * 13) + (4 + 8) * 2 + 4 * 2


def test_a_device_of_its_own_computes_while_the_host_reads():
  found = seconds(NUTS, overlaps=True)
  assert found["features"] == 53 + 9 * 2 + 4 * 3 + 8 * 5 + (4 + 8) * 13
  assert found["train"] == 59 + 10 * 29
  slow = RATES._replace(read=100.0)
  assert seconds(NUTS, overlaps=True, rates=slow)["train"] == 59 + (12 + 4) * 100


def test_memory_is_that_of_what_is_held_at_once():
  costs = laws.expected(config(), [NUTS], RATES, overlaps=False)
  weights, kept = 20 + 30, 12 * 8
  image = 64 * 64 * 3 / 2**20
  assert costs["features"].host_mib == 300 + weights + 3 * kept + 16 * image
  assert costs["train"].host_mib == 300 + weights + kept + 12 * image
  chosen = 4 * 400 * 0.5 + 400 * 64 * 8 / 2**20
  remembered = 40 * 0.5 * 2
  assert costs["calibrate"].host_mib == 300 + weights + remembered + chosen
  assert costs["evaluate"].host_mib == 300 + weights + 2 * remembered + 3 * 8
  assert all(cost.device_mib == cost.host_mib for cost in costs.values())
  apart = laws.expected(
    config(), [NUTS], RATES._replace(own_memory=True), overlaps=True
  )
  assert apart["train"].device_mib == weights + kept
  assert apart["train"].host_mib == 300 + 12 * image


def test_too_little_memory_is_warned_of_with_what_to_do():
  parts = {"train": {"host_mib": 950, "device_mib": 10}}
  run = {"categories": ["nuts"], "parts": parts}
  (text,) = estimating.warnings([run], {"host_mib": 1000, "device_mib": 1000})
  assert "nuts: the part train is expected to need 950 MiB of the host's 1000" in text
  assert "config.codebook.memory" in text
  assert estimating.warnings([run], {"host_mib": 1100, "device_mib": 1000}) == []


def test_what_would_be_drawn_is_counted_as_it_is_drawn(root):
  """The test's own set is of other numbers, but of the same flaws."""
  (tray,) = estimating.drawn(config(data__category="tray"))
  test = [path for path in (root / "tray/test").rglob("*.png")]
  flaws = len(test) - runs.COUNTS.good
  assert (tray.train, tray.validation) == (200, 40)
  assert tray.test == 60 + flaws * 15 // runs.COUNTS.per_flaw + _pairs(15)
  assert tray.pixels == 64 * 64


def test_what_cannot_be_drawn_is_named():
  with pytest.raises(ValueError, match=r"no drawn product 'nuts'; there are tray, bot"):
    estimating.estimate(config(data__category="nuts"))


def _pairs(per_flaw: int) -> int:
  from nps_jax.drawn import tray  # noqa: PLC0415

  return len(tray.PAIRS) * (per_flaw // 3)


def test_counts_and_pixels_stand_for_data():
  counts, size = estimating.told("335,60,330", "800x1600")
  assert counts == laws.Counts("any", 335, 60, 330, 800 * 1600)
  assert size == (800, 1600) and estimating.told("", "no matter") is None
  assert counts.pixels == math.prod(size)


@pytest.mark.parametrize(
  ("counts", "pixels", "words"),
  [
    ("335", "8x8", "--counts is '335'; expected TRAIN,VALIDATION,TEST"),
    ("0,1,1", "8x8", "--counts is '0,1,1'"),
    ("1,1,1", "800", "--pixels is '800'; expected HEIGHTxWIDTH"),
    ("1,1,1", "0x8", "--pixels is '0x8'"),
  ],
)
def test_wrong_counts_are_refused(counts, pixels, words):
  with pytest.raises(ValueError, match=words):
    estimating.told(counts, pixels)
