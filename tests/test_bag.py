"""The bag's rules, from its parts as they are placed."""

import collections

import numpy as np
import pytest

from nps_jax.drawn import bag
from nps_jax.drawn import drawing

CONTENTS = {"long": 1, "short": 1, "nut": 2, "washer": 2}
STILL = drawing.Pose(0.0, 1.0, (0.0, 0.0))
SEEDS = pytest.mark.parametrize("seed", range(4))


@pytest.fixture
def draw(monkeypatch):
  """A function that draws a bag, and lists its parts beside."""
  place = bag._place

  def drawn(*flaws, seed):
    parts = []

    def watched(*args):
      parts.append(place(*args))
      return parts[-1]

    monkeypatch.setattr(bag, "_place", watched)
    return bag.draw(np.random.default_rng(seed), flaws), parts

  return drawn


def kinds(parts):
  return collections.Counter(part.kind for part in parts)


def outlines(parts):
  return [shape.outline for part in parts for shape in part.shapes]


def assert_marked(drawn, name, wanted):
  for found, outline in zip(drawn.flaws[name], wanted, strict=True):
    np.testing.assert_array_equal(found, outline)


def screw(part):
  """A screw's length from head to tip, and how far its shaft bends."""
  first, second = (shape.outline for shape in part.shapes[:2])
  start, knee = (first[0] + first[8]) / 2, (first[9] + first[17]) / 2
  tip = (second[9] + second[17]) / 2
  lengths = np.linalg.norm([knee - start, tip - knee], axis=1)
  cosine = (knee - start) @ (tip - knee) / lengths.prod()
  return lengths.sum(), np.arccos(np.clip(cosine, -1, 1))


@SEEDS
def test_the_parts_are_complete_inside_and_apart(draw, seed):
  drawn, parts = draw(seed=seed)
  assert kinds(parts) == CONTENTS
  masks = [drawing.cover(outlines([part]), STILL, 200) for part in parts]
  assert np.sum(masks, axis=0).max() == 1
  inside = drawing.cover([drawn.shapes[0].outline], STILL, 200)
  assert not np.any(masks, axis=0)[~inside].any()
  for part, wanted in zip(parts[:2], (0.30, 0.19), strict=True):
    length, bend = screw(part)
    assert length == pytest.approx(wanted, rel=0.031)
    assert bend == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_logical_flaws_change_the_contents_and_others_do_not(seed):
  def contents(*flaws):
    return collections.Counter(bag._contents(np.random.default_rng(seed), flaws))

  rings = {"nut": 2, "washer": 2}
  for flaws in ((), ("bent_screw",), ("rust",), ("rust", "dirt")):
    assert contents(*flaws) == CONTENTS
  assert contents("missing_screw") in ({"long": 1, **rings}, {"short": 1, **rings})
  assert contents("wrong_length") in ({"long": 2, **rings}, {"short": 2, **rings})
  assert contents("missing_nut") == CONTENTS | {"nut": 1}
  assert contents("extra_washer") == CONTENTS | {"washer": 3}
  both = contents("missing_nut", "extra_washer")
  assert both == CONTENTS | {"nut": 1, "washer": 3}


@SEEDS
@pytest.mark.parametrize("name", ["missing_screw", "missing_nut"])
def test_a_missing_part_marks_the_bag_as_it_may_lie_anywhere(draw, seed, name):
  drawn, parts = draw(name, seed=seed)
  assert len(parts) == 5
  assert_marked(drawn, name, [drawn.shapes[0].outline])


@SEEDS
def test_an_extra_washer_marks_all_washers(draw, seed):
  drawn, parts = draw("extra_washer", seed=seed)
  washers = [part for part in parts if part.kind == "washer"]
  assert len(washers) == 3
  assert_marked(drawn, "extra_washer", outlines(washers))


@SEEDS
def test_a_wrong_length_marks_two_equal_screws(draw, seed):
  drawn, parts = draw("wrong_length", seed=seed)
  lengths = [screw(part)[0] for part in parts[:2]]
  assert lengths[0] == pytest.approx(lengths[1], rel=0.07)
  assert_marked(drawn, "wrong_length", outlines(parts[:2]))


@SEEDS
def test_a_bent_screw_is_the_only_one_and_is_marked(draw, seed):
  drawn, parts = draw("bent_screw", seed=seed)
  assert kinds(parts) == CONTENTS
  straight, bent = sorted(parts[:2], key=lambda part: screw(part)[1])
  assert screw(straight)[1] < 1e-6 and 0.69 < screw(bent)[1] < 1.21
  assert_marked(drawn, "bent_screw", outlines([bent]))


@SEEDS
def test_rust_is_on_a_part(draw, seed):
  drawn, parts = draw("rust", seed=seed)
  rust = drawing.cover(drawn.flaws["rust"], STILL, 128)
  metal = drawing.cover(outlines(parts), STILL, 128)
  assert (rust & metal).sum() > 0.3 * rust.sum()
