"""Where each encoder's levels lie, and what decoders make of it."""

import pytest

from nps_jax import geometry

BLOCKS = geometry.encoder("dinov2_vits14")


@pytest.mark.parametrize(
  ("level", "side", "want"),
  [(2, (256, 256), (64, 64)), (5, (64, 96), (2, 3)), (6, (64, 96), (1, 2))],
)
def test_a_pyramids_grids_halve_from_level_to_level(level, side, want):
  assert geometry.PYRAMID.grid(level, side) == want


def test_widths_halve_towards_fine_levels_but_not_below_eight():
  found = [geometry.PYRAMID.width(64, level) for level in range(6)]
  assert found == [8, 8, 16, 32, 64, 64]


def test_a_pyramids_levels_are_passed_one_by_one():
  assert geometry.PYRAMID.steps(7, {2: 8, 4: 8}) == [6, 5, 4, 3, 2]
  assert geometry.PYRAMID.steps(5, {4: 8}) == [4]


@pytest.mark.parametrize(
  ("level", "side", "want"),
  [
    (1, (224, 252), (16, 18)),
    (12, (224, 252), (16, 18)),
    (13, (224, 252), (8, 9)),
    (14, (224, 252), (4, 5)),  # as a convolution of stride 2 pads it
  ],
)
def test_blocks_share_a_grid_and_what_lies_beyond_halves_it(level, side, want):
  assert BLOCKS.layout(12).grid(level, side) == want


def test_of_blocks_only_those_are_passed_that_are_compared():
  layout = BLOCKS.layout(12)
  assert layout.steps(14, {4: 384, 8: 384, 12: 384}) == [13, 12, 8, 4]
  assert layout.steps(14, {4: 384, 8: 384}) == [13, 8, 4]
  assert BLOCKS.layout(8).steps(10, {4: 384, 8: 384}) == [9, 8, 4]
  assert {layout.width(256, level) for level in range(1, 15)} == {256}


def test_levels_that_are_pooled_and_counted():
  resnet = geometry.encoder("resnet101")
  assert resnet.coarse((1, 2, 3, 5)) == [3, 5] and resnet.counted((1, 2, 3)) == 3
  assert resnet.coarse((1, 2)) == [] and resnet.counted((2, 4)) is None
  assert BLOCKS.coarse((2, 7, 12)) == [2, 7, 12] and BLOCKS.counted((2, 7, 12)) == 7
  assert BLOCKS.counted((6,)) == 6 and BLOCKS.counted((4, 11)) == 11


def test_widths_are_those_that_the_networks_are_known_for():
  assert geometry.encoder("resnet34").widths == {1: 64, 2: 64, 3: 128, 4: 256, 5: 512}
  wide = geometry.encoder("wide_resnet50_2").widths
  assert wide == {1: 64, 2: 256, 3: 512, 4: 1024, 5: 2048}
  assert BLOCKS.widths == dict.fromkeys(range(1, 13), 384)
  assert set(geometry.encoder("dinov2_vitb14_reg").widths.values()) == {768}


def test_multiples_fit_every_level_and_the_raw_maps():
  for kind in geometry.ENCODERS.values():
    layout, whole = kind.layout(max(kind.widths)), kind.multiple
    assert whole % 4 == 0
    assert all(whole % layout.stride(level) == 0 for level in kind.widths)
