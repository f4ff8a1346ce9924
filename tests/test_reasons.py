"""Whose evidence is the strongest, where, and which code was miscounted: by hand."""

import numpy as np
import pytest

from nps_jax import gaussian
from nps_jax import reasons
from nps_jax import scoring


def calibration(**gaussians) -> scoring.Calibration:
  empty = {field: {} for field in scoring.Calibration._fields}
  return scoring.Calibration(
    **(empty | {"priors": scoring.Priors(), "gaussians": gaussians})
  )


def judged(evidence: dict, sources: dict) -> scoring.Judged:
  maps = np.array([[[0.0, 0.0, 1.0, 2.0], [0.0, 1.5, 0.0, 0.9]]])
  return scoring.Judged(
    maps,
    np.ones(1),
    {name: np.array([value]) for name, value in evidence.items()},
    {name: np.array([[[9.0, 0, 0, value], [0, 0, 0, 0]]]) for name, value in sources},
  )


def test_the_strongest_evidence_names_its_side_and_source():
  none = scoring.RawScores({}, {})
  sources = [("memory", 0.2), ("layout", 0.7)]
  [local] = reasons.explain(
    calibration(), none, judged({"fused": 3.0, "features": 1.0}, sources)
  )
  assert (local.side, local.source, local.what) == ("local", "layout", "")
  [whole] = reasons.explain(
    calibration(), none, judged({"fused": 3.0, "features": 4.0}, sources)
  )
  assert (whole.side, whole.source) == ("global", "features")
  # The peak's region: 1.0 and 2.0; 1.5 touches it at a corner only, 0.9 is too low.
  assert local.box == whole.box == (0.5, 0.0, 1.0, 0.5)
  assert local.pixels((11, 21)) == (10, 0, 21, 6)


@pytest.mark.parametrize("peak", [0.0, -2.0])
def test_a_peak_that_is_not_above_zero_stands_for_itself(peak):
  values = np.full((2, 4), -3.0)
  values[1, 2] = peak
  assert reasons.strongest_region(values) == (0.5, 0.5, 0.75, 1.0)


@pytest.mark.parametrize(
  ("shares", "what"),
  [([0.2, 0.9, 0.3], "too much of code 1"), ([-4.0, 0.9, 0.0], "too little of code 0")],
)
def test_a_count_names_the_code_that_adds_most_to_the_distance(shares, what):
  normal = gaussian.Gaussian(
    *(np.array([0.2, 0.1, 0.3]), np.ones(3), np.eye(3)),
    *(np.array([1.0, 2.0, 1.0]), 1.0, np.zeros((0, 3))),
  )
  raw = scoring.RawScores({}, {"codes": np.array([shares])})
  [reason] = reasons.explain(
    calibration(codes=normal), raw, judged({"fused": 0.0, "codes": 1.0}, [])
  )
  assert (reason.side, reason.source, reason.what) == ("global", "codes", what)
