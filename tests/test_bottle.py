"""The bottle's rules: its icon names the juice, both labels are there, it is full.

Its shapes are glass, juice and cap, then each label with its print, then a gleam; the
number of shapes in an icon tells which fruit it shows.
"""

import numpy as np
import pytest

from nps_jax.drawn import bottle
from nps_jax.drawn import drawing

ICONS = {8: "orange", 5: "cherry", 3: "pear"}
HEIGHT = {"icon": 0.17, "text": 0.10}  # of the labels
STILL = drawing.Pose(0.0, 1.0, (0.0, 0.0))
SEEDS = pytest.mark.parametrize("seed", range(8))


def draw(*flaws, seed):
  return bottle.draw(np.random.default_rng(seed), flaws)


def away(colour, other):
  return np.abs(np.subtract(colour, other)).max()


def juice(drawn):
  """The juice of the closest colour."""
  colour = drawn.shapes[1].colour
  return min(bottle.JUICES, key=lambda each: away(colour, bottle.JUICES[each]))


def level(drawn):
  return float(drawn.shapes[1].outline[:, 1].min())


def label(outline):
  """Which of the labels it is, by its height."""
  height = np.ptp(outline[:, 1])
  return next(name for name in HEIGHT if abs(height - HEIGHT[name]) < 1e-9)


def papers(drawn):
  """The outlines of the labels, by name."""
  found = [s.outline for s in drawn.shapes[3:-1] if np.ptp(s.outline[:, 0]) > 0.17]
  return {label(outline): outline for outline in found}


def fruit(drawn):
  """What the icon shows, from the number of shapes that are nothing else."""
  others = 3 + 1 + len(papers(drawn)) + (3 if "text" in papers(drawn) else 0)
  return ICONS.get(len(drawn.shapes) - others)


@SEEDS
def test_the_icon_names_the_juice_and_the_level_is_fixed(seed):
  drawn = draw(seed=seed)
  assert fruit(drawn) == juice(drawn)
  assert away(drawn.shapes[1].colour, bottle.JUICES[juice(drawn)]) < 0.15
  assert level(drawn) == pytest.approx(0.36, abs=0.02)
  places = {name: float(each[:, 1].mean()) for name, each in papers(drawn).items()}
  assert places == pytest.approx({"icon": 0.58, "text": 0.78}, abs=0.02)


def test_every_juice_occurs():
  assert {juice(draw(seed=seed)) for seed in range(12)} == set(bottle.JUICES)


@SEEDS
def test_a_wrong_icon_shows_another_fruit_and_it_and_the_juice_are_marked(seed):
  drawn = draw("wrong_icon", seed=seed)
  assert fruit(drawn) in set(bottle.JUICES) - {juice(drawn)}
  icon, body = drawn.flaws["wrong_icon"]
  np.testing.assert_array_equal(icon, papers(drawn)["icon"])
  np.testing.assert_array_equal(body, drawn.shapes[1].outline)


@SEEDS
def test_a_wrong_level_is_marked_from_where_it_is_to_where_it_should_be(seed):
  drawn = draw("wrong_level", seed=seed)
  assert fruit(drawn) == juice(drawn)
  assert 0.02 < abs(level(drawn) - 0.36) < 0.16
  (gap,) = drawn.flaws["wrong_level"]
  found = [gap[:, 1].min(), gap[:, 1].max()]
  np.testing.assert_allclose(found, sorted((level(drawn), 0.36)), atol=1e-9)


@SEEDS
def test_a_missing_label_is_marked_where_it_would_be(seed):
  drawn = draw("missing_label", seed=seed)
  (marked,) = drawn.flaws["missing_label"]
  assert {label(marked), *papers(drawn)} == set(HEIGHT) and len(papers(drawn)) == 1
  assert fruit(drawn) == (juice(drawn) if label(marked) == "text" else None)
  wanted = {"icon": 0.58, "text": 0.78}[label(marked)]
  assert marked[:, 1].mean() == pytest.approx(wanted, abs=0.02)


@SEEDS
def test_swapped_labels_have_the_icon_below_the_text(seed):
  drawn = draw("swapped_labels", seed=seed)
  assert fruit(drawn) == juice(drawn)
  icon, text = papers(drawn)["icon"], papers(drawn)["text"]
  assert icon[:, 1].min() > text[:, 1].max()
  for found, wanted in zip(drawn.flaws["swapped_labels"], (icon, text), strict=True):
    np.testing.assert_array_equal(found, wanted)


@SEEDS
def test_a_strange_juice_is_none_of_the_three(seed):
  drawn = draw("strange_juice", seed=seed)
  colour = drawn.shapes[1].colour
  assert min(away(colour, each) for each in bottle.JUICES.values()) > 0.12
  (marked,) = drawn.flaws["strange_juice"]
  np.testing.assert_array_equal(marked, drawn.shapes[1].outline)


@SEEDS
def test_a_tear_takes_a_corner_of_a_label(seed):
  drawn = draw("torn_label", seed=seed)
  torn = drawing.cover(drawn.flaws["torn_label"], STILL, 128)
  corners = np.concatenate(list(papers(drawn).values()))
  (marked,) = drawn.flaws["torn_label"]
  assert np.linalg.norm(corners - marked[0], axis=1).min() < 0.003
  paper = drawing.cover(list(papers(drawn).values()), STILL, 128)
  assert (torn & paper).sum() > 0.7 * torn.sum()
