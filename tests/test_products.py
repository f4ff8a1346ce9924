"""Every flaw of every drawn product: marked within the frame, and seen."""

import collections
import itertools

import numpy as np
import pytest
from scipy import ndimage

from nps_jax.drawn import drawing
from nps_jax.drawn import synthetic

FLAWS = [
  (product, flaw)
  for product, module in synthetic.PRODUCTS.items()
  for flaw in module.FLAWS
]
STILL = drawing.Pose(0.0, 1.0, (0.0, 0.0))
# Flaws that are painted over the product, and how far they stand out on average.
PAINTED = {
  ("tray", "dirt"): 0.2,
  ("bottle", "torn_label"): 0.2,
  ("bottle", "stain"): 0.2,
  ("bottle", "scratch"): 0.03,  # white, and partly on white labels
  ("bag", "rust"): 0.2,
  ("bag", "dirt"): 0.2,
  ("box", "bruise"): 0.2,
  ("box", "foreign_object"): 0.2,
  ("box", "cracked_rim"): 0.2,
}


def draw(product, *flaws, seed=0):
  return synthetic.PRODUCTS[product].draw(np.random.default_rng(seed), flaws)


@pytest.mark.parametrize("product", synthetic.CATEGORIES)
def test_a_product_has_flaws_enough_and_pairs_of_one_sort(product):
  module = synthetic.PRODUCTS[product]
  logical = {flaw.name: flaw.logical for flaw in module.FLAWS}
  assert len(logical) == len(module.FLAWS)
  counts = collections.Counter(logical.values())
  assert counts[True] >= 3 and counts[False] >= 3
  assert {logical[first] for first, _ in module.PAIRS} == {True, False}
  for first, second in module.PAIRS:
    assert first != second and logical[first] is logical[second]
    assert set(draw(product, first, second).flaws) == {first, second}
  assert draw(product).flaws == {}


@pytest.mark.parametrize("product", synthetic.CATEGORIES)
def test_normal_products_differ_by_seed_and_agree_by_seed(product):
  first, again, other = (
    drawing.paint(draw(product, seed=seed), STILL, 48) for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, again)
  assert (first != other).any(axis=-1).mean() > 0.3


@pytest.mark.parametrize("case", FLAWS, ids=lambda case: f"{case[0]}-{case[1].name}")
def test_a_flaw_marks_its_place_within_the_frame_and_large_enough_to_find(case):
  product, flaw = case
  assert 0 < flaw.saturation <= 1
  for seed in range(4):
    drawn = draw(product, flaw.name, seed=seed)
    assert list(drawn.flaws) == [flaw.name]
    outlines = drawn.flaws[flaw.name]
    extremes = itertools.product((-0.07, 0.07), (-0.025, 0.025), (-0.025, 0.025))
    for angle, x, y in extremes:
      for outline in outlines:
        moved = drawing.turned((outline - 0.5) * 1.04, angle, 0.5 + x, 0.5 + y)
        assert moved.min() > 0 and moved.max() < 1
    smallest = drawing.cover(outlines, STILL._replace(scale=0.95), 128).sum()
    assert smallest >= (1 if flaw.relative else flaw.saturation * 128**2)


@pytest.mark.parametrize("case", PAINTED, ids="-".join)
def test_a_painted_flaw_stands_out_within_its_mask_and_changes_nothing_else(case):
  product, name = case
  for seed in range(6):
    drawn = draw(product, name, seed=seed)
    painted = [id(outline) for outline in drawn.flaws[name]]
    rest = [shape for shape in drawn.shapes if id(shape.outline) not in painted]
    assert len(rest) == len(drawn.shapes) - len(painted)
    pair = (drawn, drawn._replace(shapes=rest))
    after, before = (drawing.paint(each, STILL, 96) for each in pair)
    change = np.abs(after - before).max(axis=-1)
    mask = drawing.cover(drawn.flaws[name], STILL, 96)
    assert change[mask].mean() > PAINTED[case]
    assert not change[~ndimage.binary_dilation(mask, np.ones((3, 3)))].any()
