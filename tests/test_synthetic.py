"""The written data set: read back by our own reader, repeatable, whole or absent."""

import functools
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from nps_jax.data import folder
from nps_jax.data import masks
from nps_jax.data import records
from nps_jax.drawn import drawing
from nps_jax.drawn import synthetic

SIZE, COUNTS = 64, synthetic.Counts(2, 1, 1, 1)
KINDS = {records.LOGICAL: True, records.STRUCTURAL: False}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """All categories, once."""
  place = tmp_path_factory.mktemp("drawn")
  synthetic.write(place, synthetic.CATEGORIES, seed=3, size=SIZE, counts=COUNTS)
  return place


def contents(place):
  """The hash of every file, by its path."""
  return {
    each.relative_to(place).as_posix(): hashlib.sha256(each.read_bytes()).hexdigest()
    for each in place.rglob("*")
    if each.is_file()
  }


def names(category, kind):
  """A product's flaws of one kind, in the order of their images."""
  flaws = synthetic.PRODUCTS[category].FLAWS
  return [flaw.name for flaw in flaws if flaw.logical is KINDS[kind]]


@pytest.mark.parametrize("category", synthetic.CATEGORIES)
def test_our_reader_finds_the_loco_layout_with_all_images(root, category):
  found = folder.open_category(root, category)
  assert (found.category, found.layout) == (category, "loco")
  assert (len(found.train), len(found.validation)) == (2, 1)
  kinds = [each.kind for each in found.test]
  assert kinds.count(records.GOOD) == 1
  for kind in KINDS:
    assert kinds.count(kind) == len(names(category, kind))
  images = [*found.train, *found.validation, *found.test]
  for each in images:
    with Image.open(each.image) as image:
      assert (image.mode, image.size) == ("RGB", (SIZE, SIZE))
  assert len({each.image.read_bytes() for each in images}) == len(images)


@pytest.mark.parametrize("category", synthetic.CATEGORIES)
def test_each_mask_stands_for_its_flaw(root, category):
  found = folder.open_category(root, category)
  flaws = {flaw.name: flaw for flaw in synthetic.PRODUCTS[category].FLAWS}
  for kind in KINDS:
    tested = [each for each in found.test if each.kind == kind]
    for each, name in zip(tested, names(category, kind), strict=True):
      truth = masks.read(each, found.defects, (SIZE, SIZE))
      assert truth.names == (name,)
      (path,) = each.masks
      value = 255 - list(flaws).index(name)
      assert np.unique(Image.open(path)).tolist() == [0, value]
      area, limit = len(truth.channels[0]), flaws[name].saturation
      absolute = min(round(limit * SIZE**2), area)
      wanted = max(int(limit * area), 1) if flaws[name].relative else absolute
      assert truth.saturation.tolist() == [wanted]


def test_pixel_values_and_thresholds_are_those_of_the_product(root):
  entries = json.loads((root / "tray" / "defects_config.json").read_text())
  rows = [
    ("missing_pin", 255, 21, False),  # 0.0052 of 64 x 64 pixels is 21.3
    ("extra_pin", 254, 21, False),
    ("missing_wall", 253, 1.0, True),
    ("bent_pin", 252, 0.5, True),
    ("wrong_colour", 251, 1.0, True),
    ("dirt", 250, 1.0, True),
  ]
  assert entries == [dict(zip(masks.KEYS, row, strict=True)) for row in rows]


@pytest.mark.parametrize(("size", "wanted"), [(32, 5), (48, 12), (128, 85)])
def test_absolute_thresholds_grow_with_the_area(tmp_path, size, wanted):
  synthetic.write(tmp_path, ["tray"], size=size, counts=synthetic.Counts(1, 1, 0, 1))
  defects = masks.read_defects(tmp_path / "tray" / "defects_config.json")
  assert [each.saturation_threshold for each in defects[:3]] == [wanted, wanted, 1.0]


def test_the_same_seed_gives_the_same_bytes_alone_or_among_others(root, tmp_path):
  synthetic.write(tmp_path, ["box", "tray"], seed=3, size=SIZE, counts=COUNTS)
  for category in ("box", "tray"):
    assert contents(tmp_path / category) == contents(root / category)


def test_another_process_writes_the_same_bytes(root, tmp_path):
  code = (
    "import pathlib, sys; from nps_jax.drawn import synthetic;"
    "synthetic.write(pathlib.Path(sys.argv[1]), ['bottle'], seed=3, size=64,"
    " counts=synthetic.Counts(2, 1, 1, 1))"
  )
  package = pathlib.Path(synthetic.__file__).parents[2]
  environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(package)}
  command = [sys.executable, "-c", code, str(tmp_path)]
  subprocess.run(command, env=environment, check=True)
  assert contents(tmp_path / "bottle") == contents(root / "bottle")


def test_another_seed_gives_other_images_of_the_same_names(root, tmp_path):
  synthetic.write(tmp_path, ["bottle"], seed=4, size=SIZE, counts=COUNTS)
  found, others = contents(tmp_path / "bottle"), contents(root / "bottle")
  assert set(found) == set(others)
  images = [name for name in found if name.startswith(("train", "validation", "test"))]
  assert len(images) == 2 + 1 + 1 + 8
  assert not [name for name in images if found[name] == others[name]]
  assert found["defects_config.json"] == others["defects_config.json"]


def test_two_flaws_have_two_channels_in_the_order_of_the_pair(tmp_path):
  synthetic.write(tmp_path, ["bottle"], size=SIZE, counts=synthetic.Counts(1, 1, 1, 3))
  found = folder.open_category(tmp_path, "bottle")
  for kind, pair in zip(KINDS, synthetic.PRODUCTS["bottle"].PAIRS, strict=True):
    tested = [each for each in found.test if each.kind == kind]
    truths = [masks.read(each, found.defects, (SIZE, SIZE)) for each in tested]
    single = [(name,) for name in names("bottle", kind)] * 3
    assert [truth.names for truth in truths] == [*single, pair]
    assert [path.name for path in tested[-1].masks] == ["000.png", "001.png"]
    assert all(len(channel) for channel in truths[-1].channels)


def test_a_mask_is_where_its_image_differs_from_the_product_without_the_flaw(
  tmp_path, monkeypatch
):
  """The lamp, lens and sensor are left out, and so is the stain."""

  def write(place):
    counts = synthetic.Counts(1, 1, 0, 1)
    synthetic.write(place, ["bottle"], seed=1, size=SIZE, counts=counts)
    at = names("bottle", records.STRUCTURAL).index("stain")
    path = f"{records.STRUCTURAL}/{at:03d}"
    image = Image.open(place / "bottle" / "test" / f"{path}.png")
    mask = Image.open(place / "bottle" / "ground_truth" / path / "000.png")
    return np.int64(image), np.asarray(mask) > 0

  def clean(drawn, pose, size):
    marked = [id(each) for each in drawn.flaws.get("stain", [])]
    rest = [each for each in drawn.shapes if id(each.outline) not in marked]
    return paint(drawn._replace(shapes=rest), pose, size)

  paint = drawing.paint
  sensor = lambda rng, scene: np.uint8(np.rint(255 * scene))  # noqa: E731
  monkeypatch.setattr(drawing, "photograph", sensor)
  image, mask = write(tmp_path / "stained")
  monkeypatch.setattr(drawing, "paint", clean)
  bare, same = write(tmp_path / "clean")
  np.testing.assert_array_equal(mask, same)
  change = np.abs(image - bare).max(axis=-1)
  assert mask.sum() > 4
  assert change[mask].min() > 25 and (change > 0).sum() < 3 * mask.sum()


def test_an_unknown_product_is_refused_before_anything_is_written(tmp_path):
  place = tmp_path / "drawn"
  with pytest.raises(
    ValueError,
    match=r"no drawn product 'botle'; there are tray, bottle, bag, box\. Did you mean "
    r"'bottle'\?",
  ):
    synthetic.write(place, ["tray", "botle"], size=SIZE, counts=COUNTS)
  with pytest.raises(ValueError, match=r"no drawn product 'zzz'; .* bag, box\.$"):
    synthetic.write(place, ["zzz"])
  assert not place.exists()


def test_a_folder_that_is_there_is_refused_and_left_alone(tmp_path):
  (tmp_path / "bag").mkdir()
  (tmp_path / "bag" / "mine.txt").write_text("words")
  with pytest.raises(ValueError, match=r"/bag exists already\. Remove it, or choose"):
    synthetic.write(tmp_path, ["tray", "bag"], size=SIZE, counts=COUNTS)
  assert [each.name for each in tmp_path.rglob("*")] == ["bag", "mine.txt"]


def test_tiny_images_are_refused(tmp_path):
  with pytest.raises(ValueError, match="size is 31 pixels; expected at least 32"):
    synthetic.write(tmp_path / "drawn", ["tray"], size=31, counts=COUNTS)
  assert not (tmp_path / "drawn").exists()


def test_a_category_named_twice_is_written_once(root, tmp_path):
  synthetic.write(tmp_path, ["bag", "bag"], seed=3, size=SIZE, counts=COUNTS)
  assert contents(tmp_path) == {
    f"bag/{name}": value for name, value in contents(root / "bag").items()
  }


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interruption_leaves_no_part_of_a_category(
  root, tmp_path, monkeypatch, error
):
  count, photograph = 0, drawing.photograph

  def interrupted(rng, scene):
    nonlocal count
    count += 1
    if count > 12 + 5:  # the bottle has twelve images
      raise error("no space left")
    return photograph(rng, scene)

  monkeypatch.setattr(drawing, "photograph", interrupted)
  with pytest.raises(error, match="no space left"):
    synthetic.write(tmp_path, ["bottle", "bag"], seed=3, size=SIZE, counts=COUNTS)
  assert [each.name for each in tmp_path.iterdir()] == ["bottle"]
  assert contents(tmp_path / "bottle") == contents(root / "bottle")


def test_the_command_writes_what_the_function_does(root, tmp_path, monkeypatch, capsys):
  few = functools.partial(synthetic.Counts, *COUNTS)
  monkeypatch.setattr(synthetic, "Counts", few)
  place = tmp_path / "drawn"
  flags = [f"--out={place}", "--categories=bag, bottle", "--seed=3", f"--size={SIZE}"]
  synthetic.main(flags)
  assert capsys.readouterr().out == f"bag, bottle written to {place}\n"
  assert sorted(each.name for each in place.iterdir()) == ["bag", "bottle"]
  for category in ("bag", "bottle"):
    assert contents(place / category) == contents(root / category)
  with pytest.raises(SystemExit, match=r"Error: .*/bag exists already"):
    synthetic.main(flags)


def test_the_command_refuses_wrong_names(tmp_path, capsys):
  with pytest.raises(
    SystemExit, match=r"Error: There is no drawn product 'trays'.*tray"
  ):
    synthetic.main([f"--out={tmp_path}", "--categories=trays"])
  with pytest.raises(SystemExit, match="2"):
    synthetic.main(["--categories=tray"])
  assert "--out" in capsys.readouterr().err
