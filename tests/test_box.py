"""The lunch box's rules: which fruits lie on the left, where the fillings meet."""

import collections
import itertools

import numpy as np
import pytest

from nps_jax.drawn import box

LEFT, RIGHT, TOP, BOTTOM, BORDER, RADIUS = 0.105, 0.475, 0.16, 0.84, 0.55, 0.082
SEEDS = pytest.mark.parametrize("seed", range(4))


def draw(*flaws, seed):
  return box.draw(np.random.default_rng(seed), flaws)


def fruits(drawn):
  """The fruits by their colour, and the centres of their discs."""
  found = [
    shape
    for shape in drawn.shapes
    if len(shape.outline) == 36 and np.ptp(shape.outline[:, 0]) > 0.14
  ]
  names = collections.Counter(
    min(box.FRUIT, key=lambda name: np.abs(np.subtract(colour, box.FRUIT[name])).sum())
    for _, colour in found
  )
  return names, [outline.mean(axis=0) for outline, _ in found]


def fillings(drawn):
  """Top and bottom of the flakes, and of the almonds: their grounds."""
  grounds = [
    (shape.colour[0], shape.outline[:, 1].min(), shape.outline[:, 1].max())
    for shape in drawn.shapes[3:]
    if len(shape.outline) == 4 and np.ptp(shape.outline[:, 0]) > 0.3
  ]
  (_, *almonds), (_, *flakes) = sorted(grounds)  # flakes are lighter
  return flakes, almonds


@SEEDS
def test_two_mandarins_and_an_apple_lie_apart_on_the_left(seed):
  names, places = fruits(draw(seed=seed))
  assert names == {"mandarin": 2, "apple": 1}
  for one, other in itertools.combinations(places, 2):
    assert np.linalg.norm(one - other) > 2 * RADIUS
  for x, y in places:
    assert LEFT + RADIUS < x < RIGHT - RADIUS
    assert TOP + RADIUS < y < BOTTOM - RADIUS


@SEEDS
def test_the_fillings_meet_at_the_border(seed):
  flakes, almonds = fillings(draw(seed=seed))
  assert flakes == pytest.approx([TOP, BORDER], abs=0.03)
  assert almonds == pytest.approx([flakes[1], BOTTOM])


@SEEDS
def test_a_missing_fruit_leaves_two_of_the_three_and_marks_their_place(seed):
  drawn = draw("missing_fruit", seed=seed)
  names, _ = fruits(drawn)
  assert names.total() == 2 and names < collections.Counter(mandarin=2, apple=1)
  (marked,) = drawn.flaws["missing_fruit"]
  found = [*marked.min(axis=0), *marked.max(axis=0)]
  np.testing.assert_allclose(found, [LEFT, TOP, RIGHT, BOTTOM], atol=1e-9)


@SEEDS
def test_a_wrong_fruit_makes_one_kind_too_many_which_is_marked(seed):
  drawn = draw("wrong_fruit", seed=seed)
  names, places = fruits(drawn)
  assert names in ({"mandarin": 3}, {"mandarin": 1, "apple": 2})
  marked = [outline.mean(axis=0) for outline in drawn.flaws["wrong_fruit"]]
  many = places if len(names) == 1 else places[1:]  # mandarins come first
  np.testing.assert_allclose(marked, many, atol=1e-9)


def test_either_fruit_may_be_too_many():
  found = [fruits(draw("wrong_fruit", seed=seed))[0]["apple"] for seed in range(10)]
  assert set(found) == {0, 2}


@SEEDS
def test_a_wrong_ratio_is_marked_from_border_to_border(seed):
  drawn = draw("wrong_ratio", seed=seed)
  flakes, almonds = fillings(drawn)
  assert (flakes[0], *almonds) == pytest.approx((TOP, flakes[1], BOTTOM))
  assert 0.08 < abs(flakes[1] - BORDER) < 0.23
  (marked,) = drawn.flaws["wrong_ratio"]
  found = [marked[:, 1].min(), marked[:, 1].max()]
  np.testing.assert_allclose(found, sorted((flakes[1], BORDER)), atol=1e-9)
  assert fruits(drawn)[0] == {"mandarin": 2, "apple": 1}


@SEEDS
def test_swapped_fillings_keep_their_amounts(seed):
  drawn = draw("swapped_fillings", seed=seed)
  flakes, almonds = fillings(drawn)
  assert (almonds[0], *flakes) == pytest.approx((TOP, almonds[1], BOTTOM))
  assert almonds[1] - almonds[0] == pytest.approx(BOTTOM - BORDER, abs=0.03)
  (marked,) = drawn.flaws["swapped_fillings"]
  assert (marked[:, 1].min(), marked[:, 1].max()) == pytest.approx((TOP, BOTTOM))
