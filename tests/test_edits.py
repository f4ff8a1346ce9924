"""Edited normal images: what is changed lies in their masks, seeded, of all kinds."""

import logging

import numpy as np
from PIL import Image
import pytest
from scipy import ndimage
import test_parts

from nps_jax import edits
from nps_jax import parts


@pytest.fixture(scope="module")
def images():
  return [test_parts.picture(noise) for noise in (0.5, 1.0, 1.5)]


@pytest.fixture(scope="module")
def made(images):
  return edits.make(images, 12, 0)


def test_every_kind_is_made_about_equally_often(made):
  counts = [sum(edit.kind == kind for edit in made) for kind in edits.KINDS]
  assert len(made) == 36 and min(counts) >= 3 and max(counts) <= 6


def test_what_changes_visibly_lies_in_the_mask(images, made):
  for edit in made:
    before = images[edit.source]
    gap = np.abs(edit.image.astype(float) - before).mean(axis=-1)
    near = ndimage.binary_dilation(edit.mask, iterations=5)
    assert gap[~near].max() <= 4, edit.kind
    assert ndimage.gaussian_filter(gap, 1.0)[edit.mask].max() > 8, edit.kind
    assert edits.SMALLEST <= edit.mask.mean() <= edits.LARGEST


def test_the_same_seed_gives_the_same_edits_and_another_others(images, made):
  again = edits.make(images, 12, 0)
  assert [edit.kind for edit in again] == [edit.kind for edit in made]
  for one, two in zip(made, again, strict=True):
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.mask, two.mask)
  other = edits.make(images, 12, 1)
  assert any((a.image != b.image).any() for a, b in zip(made, other, strict=True))


def test_the_normal_images_stay_as_they_are(images):
  before = [image.copy() for image in images]
  edits.make(images, 9, 3)
  for image, copy in zip(images, before, strict=True):
    np.testing.assert_array_equal(image, copy)


@pytest.mark.parametrize(("kind", "more"), [("erase", -1), ("copy", 1)])
def test_a_part_is_gone_or_there_once_more(images, kind, more):
  masks = [parts_of(image) for image in images]
  scene = edits.Scene(images[0], masks[0], np.ones((1, 1)), images[1], masks[1])
  edited, _ = edits.KINDS[kind](np.random.default_rng(1), scene)
  assert len(parts_of(edited)) == len(masks[0]) + more


def test_images_without_parts_get_no_edits_of_parts_and_the_log_says_so(caplog):
  rng = np.random.default_rng(7)
  waves = np.sin(np.arange(96) / 5)[:, None] * np.sin(np.arange(96) / 4)[None]
  busy = 120 + 60 * waves[..., None] + rng.normal(0, 4, (96, 96, 3))
  images = [parts.as_picture(busy), parts.as_picture(255 - busy)]
  with caplog.at_level(logging.INFO, logger="absl"):
    made = edits.make(images, 6, 0)
  assert {edit.kind for edit in made} <= set(edits.KINDS) - set(edits.OF_PARTS) and made
  assert "2 of 2 images show no parts on plain ground" in caplog.text


def test_the_command_draws_a_sheet(images, tmp_path, capsys):
  for at, image in enumerate(images):
    Image.fromarray(image).save(tmp_path / f"{at}.png")
  out = tmp_path / "sheets" / "sheet.png"
  edits.main([f"--images={tmp_path}", f"--out={out}", "--size=128"])
  with Image.open(out) as sheet:
    assert sheet.size == (edits.SHOWN * 128, len(edits.KINDS) * 128)
  assert f"Written: {out}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_without_images_is_answered(tmp_path, name):
  with pytest.raises(SystemExit, match="Error: "):
    edits.main([f"--images={tmp_path / name}", f"--out={tmp_path / 'sheet.png'}"])


def test_images_that_no_edit_fits_are_answered(tmp_path, monkeypatch):
  monkeypatch.setattr(edits, "KINDS", {})
  Image.new("RGB", (64, 64), "grey").save(tmp_path / "grey.png")
  with pytest.raises(SystemExit, match="No edit fits these images"):
    edits.main([f"--images={tmp_path}", f"--out={tmp_path / 'sheet.png'}"])


def test_small_images_are_edited_too():
  """Pieces of a few pixels; the warnings of an empty mean are errors."""
  rng = np.random.default_rng(0)
  images = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(2)]
  assert len(edits.make(images, 40, 0)) > 40


def parts_of(image):
  return parts.find(image, parts.grounds(image))
