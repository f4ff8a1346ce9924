"""The tray's rules, counted from its shapes: which pins are where, which walls."""

import collections
import itertools

import numpy as np
import pytest

from nps_jax.drawn import tray

LEFT, TOP, WIDTH, HEIGHT, WALL = 0.08, 0.125, 0.21, 0.25, 0.018
CELLS = set(itertools.product(range(3), range(4)))
WALLS = 4 + 2 + 3 * 3  # across, at the sides, and between columns
SEEDS = pytest.mark.parametrize("seed", range(5))


def draw(*flaws, seed):
  return tray.draw(np.random.default_rng(seed), flaws)


def middle(outline):
  return (outline.min(axis=0) + outline.max(axis=0)) / 2


def centre(cell):
  return (LEFT + (cell[1] + 0.5) * WIDTH, TOP + (cell[0] + 0.5) * HEIGHT)


def heads(drawn):
  """The colours of the pins' heads in each compartment, by row and column."""
  found = collections.defaultdict(list)
  for shape in drawn.shapes:
    if len(shape.outline) == 36 and np.ptp(shape.outline[:, 0]) > 0.05:
      x, y = middle(shape.outline)
      cell = (int((y - TOP) // HEIGHT), int((x - LEFT) // WIDTH))
      found[cell].append(shape.colour)
  return found


def yellow(colour):
  return np.abs(np.subtract(colour, tray.YELLOW)).max() < 0.25


def walls(drawn):
  """Left, top, right and bottom of every wall."""
  outlines = [each.outline for each in drawn.shapes[1:] if len(each.outline) == 4]
  return {tuple(np.round([*each.min(0), *each.max(0)], 9)) for each in outlines}


def needles(drawn):
  return [each.outline for each in drawn.shapes if len(each.outline) == 18]


def bends(drawn):
  """The angle between the two halves of every needle."""
  lines = [half[9:].mean(axis=0) - half[:9].mean(axis=0) for half in needles(drawn)]
  turns = [np.arctan2(y, x) for x, y in lines]
  gaps = np.subtract(turns[1::2], turns[::2])
  return np.abs(np.mod(gaps + np.pi, 2 * np.pi) - np.pi)


@SEEDS
def test_each_compartment_has_one_straight_yellow_pin(seed):
  drawn = draw(seed=seed)
  found = heads(drawn)
  assert set(found) == CELLS
  assert all(len(each) == 1 and yellow(each[0]) for each in found.values())
  assert len(walls(drawn)) == WALLS
  np.testing.assert_allclose(bends(drawn), np.zeros(12), atol=1e-9)


@SEEDS
def test_every_pin_lies_between_the_walls_of_its_compartment(seed):
  drawn = draw(seed=seed)
  pins = [each.outline for each in drawn.shapes[1 + WALLS :]]
  for cell, at in zip(sorted(CELLS), range(0, 48, 4), strict=True):
    away = np.abs(np.concatenate(pins[at : at + 4]) - centre(cell))
    assert (away < np.array([WIDTH - WALL, HEIGHT - WALL]) / 2 + 1e-9).all()


@SEEDS
def test_a_missing_pin_leaves_one_compartment_empty(seed):
  drawn = draw("missing_pin", seed=seed)
  (empty,) = CELLS - set(heads(drawn))
  assert len(drawn.shapes) == 1 + WALLS + 4 * 11
  (marked,) = drawn.flaws["missing_pin"]
  np.testing.assert_allclose(middle(marked), centre(empty), atol=1e-9)
  np.testing.assert_allclose(np.ptp(marked, axis=0), [0.192, 0.232], atol=1e-9)


@SEEDS
def test_an_extra_pin_shares_a_compartment_and_both_are_marked(seed):
  drawn = draw("extra_pin", seed=seed)
  counts = {cell: len(each) for cell, each in heads(drawn).items()}
  assert sorted(counts.values()) == [1] * 11 + [2]
  assert len(drawn.shapes) == 1 + WALLS + 4 * 13
  shared = next(cell for cell, count in counts.items() if count == 2)
  assert len(drawn.flaws["extra_pin"]) == 8
  for outline in drawn.flaws["extra_pin"]:
    away = np.abs(middle(outline) - centre(shared))
    assert (away < np.array([WIDTH, HEIGHT]) / 2).all()


@SEEDS
def test_a_missing_wall_is_one_between_two_columns(seed):
  drawn = draw("missing_wall", seed=seed)
  (marked,) = drawn.flaws["missing_wall"]
  gone = walls(draw(seed=seed)) - walls(drawn)
  assert gone == {tuple(np.round([*marked.min(0), *marked.max(0)], 9))}
  np.testing.assert_allclose(np.ptp(marked, axis=0), [0.018, 0.232], atol=1e-9)
  assert all(len(each) == 1 for each in heads(drawn).values())


@SEEDS
def test_a_bent_pin_is_the_only_one(seed):
  drawn = draw("bent_pin", seed=seed)
  found = bends(drawn)
  assert ((found > 1.29).sum(), (found < 1e-9).sum()) == (1, 11)
  at = 2 * int(np.argmax(found))
  np.testing.assert_array_equal(needles(drawn)[at : at + 2], drawn.flaws["bent_pin"])


@SEEDS
def test_a_wrong_colour_is_on_one_head_which_is_marked(seed):
  drawn = draw("wrong_colour", seed=seed)
  (strange,) = [each for (each,) in heads(drawn).values() if not yellow(each)]
  (marked,) = drawn.flaws["wrong_colour"]
  assert [each.colour for each in drawn.shapes if each.outline is marked] == [strange]


@SEEDS
def test_two_flaws_lie_in_different_compartments(seed):
  drawn = draw("missing_pin", "extra_pin", seed=seed)
  counts = sorted(len(heads(drawn)[cell]) for cell in CELLS)
  assert counts == [0] + [1] * 10 + [2]
