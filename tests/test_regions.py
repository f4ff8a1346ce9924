"""Outside of its region nothing in an image counts, to the last digit."""

import dataclasses

import numpy as np
from PIL import Image
import pytest
import runs

from nps_jax import inference
from nps_jax import lessons
from nps_jax import predict
from nps_jax import trainer
from nps_jax.data import decoding
from nps_jax.data import folder
from nps_jax.data import records
from nps_jax.data import regions
from nps_jax.report import lines
from nps_jax.runs import telemetry


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A region: the upper 40 of 64 rows, as a JPEG of which black is not quite black."""
  seen = np.zeros((64, 64), np.uint8)
  seen[:40] = 255
  path = tmp_path_factory.mktemp("camera") / "seen.jpg"
  Image.fromarray(seen).save(path, quality=90)
  return path


@pytest.fixture(scope="module")
def stained(root, tmp_path_factory):
  """The tiny tray with a stain of its own in every image below the region."""
  copy = tmp_path_factory.mktemp("stained")
  rng = np.random.default_rng(0)
  for path in sorted((root / "tray").rglob("*")):
    target = copy / path.relative_to(root)
    if path.is_dir():
      target.mkdir(parents=True, exist_ok=True)
    elif "ground_truth" in path.parts or path.suffix != ".png":
      target.parent.mkdir(parents=True, exist_ok=True)
      target.write_bytes(path.read_bytes())
    else:
      target.parent.mkdir(parents=True, exist_ok=True)
      with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
      pixels[40:] = rng.integers(0, 256, pixels[40:].shape)
      Image.fromarray(pixels).save(target)
  return copy


def trained(root, place, workdir):
  config = runs.config(root, data__category="tray", data__region=str(place))
  return trainer.fit(config, workdir)


@pytest.fixture(scope="module")
def clean_run(root, place, tmp_path_factory):
  return trained(root, place, tmp_path_factory.mktemp("clean") / "run")


def test_a_stain_outside_changes_no_digit(root, stained, place, clean_run, tmp_path):
  """Of losses, calibration, scores and maps, also where all normal images have one."""
  other = trained(stained, place, tmp_path / "run")
  losses = [
    [line["loss"] for line in telemetry.read(run.folder)] for run in (clean_run, other)
  ]
  assert losses[0] == losses[1]
  for run in (clean_run, other):
    normal = run.calibrations["tray"].normal["score"]
    np.testing.assert_array_equal(
      normal, clean_run.calibrations["tray"].normal["score"]
    )
  for data_root in (root, stained):
    data = folder.open_category(data_root, "tray")
    images = regions.attach(data.test[:6], place)
    scored = list(inference.scores(clean_run, images, "tray"))
    if data_root == root:
      want = scored
    assert [each.score for each in scored] == [each.score for each in want]
    for one, another in zip(scored, want, strict=True):
      np.testing.assert_array_equal(one.map, another.map)
      assert (one.map[10:] == one.map.min()).all()  # 4 pixels a cell
      assert len(np.unique(one.map[:10])) > 50
  without = list(inference.scores(clean_run, data.test[:6], "tray"))
  assert [each.score for each in without] != [each.score for each in want]


def test_a_run_keeps_its_region_for_prediction(
  stained, root, place, clean_run, tmp_path
):
  good = "tray/test/good"
  rows = []
  for number, data_root in enumerate((root, stained)):
    out = tmp_path / str(number)
    predict.main(
      [f"--run={clean_run.folder}", f"--images={data_root / good}", f"--out={out}"]
    )
    rows.append(lines.mend(out / "scores.csv"))
  assert [row["score"] for row in rows[0]] == [row["score"] for row in rows[1]]
  assert (clean_run.folder / "region" / place.name).exists()


def test_edits_stay_within(root, place):
  data = folder.open_category(root, "tray")
  images = regions.attach(data.train, place)
  made = lessons.copies(images, (64, 64), 40, 0)
  assert 20 < len(made.records) <= 48
  assert not made.masks[:, 40:].any() and made.masks.any(axis=(1, 2)).all()
  for record, source in zip(made.records, made.sources, strict=True):
    edited, before = (
      decoding.decode(one, (64, 64)) for one in (record, images[source])
    )
    np.testing.assert_array_equal(edited[41:], before[41:])
    assert (edited[:40] != before[:40]).any()
    assert (before[48:] == decoding.FILL).all()


def test_each_image_finds_its_own_region(tmp_path):
  white = Image.new("L", (4, 4), 255)
  (tmp_path / "test" / "good").mkdir(parents=True)
  white.save(tmp_path / "test" / "good" / "a.png")
  white.save(tmp_path / "b.bmp")
  ids = ("nuts/test/good/a", "nuts/test/good/b", "b", "elsewhere/b")
  images = [records.Record(name, "", "test", "good", b"") for name in ids]
  names = [one.region.name for one in regions.attach(images, tmp_path)]
  assert names == ["a.png", "b.bmp", "b.bmp", "b.bmp"]
  lost = [records.Record("nuts/test/good/c", "", "test", "good", b"")]
  with pytest.raises(
    FileNotFoundError, match=r"no region for nuts/test/good/c; .* or c"
  ):
    regions.attach(lost, tmp_path)
  with pytest.raises(
    FileNotFoundError, match=r"gone\.png does not exist; config\.data"
  ):
    regions.attach(lost, tmp_path / "gone.png")


@pytest.mark.parametrize(
  ("size", "value", "complaint"),
  [
    ((64, 32), 255, r"region\.png is 64 x 32 .* but the image of .* is 64 x 64"),
    ((64, 64), 0, r"region\.png is black all over"),
  ],
)
def test_regions_that_cannot_be_meant(root, tmp_path, size, value, complaint):
  Image.new("L", size[::-1], value).save(tmp_path / "region.png")
  data = folder.open_category(root, "tray")
  (image,) = regions.attach(data.train[:1], tmp_path / "region.png")
  with pytest.raises(ValueError, match=complaint):
    decoding.decode(image)


def test_a_region_of_another_content_is_another_run(root, place, clean_run, tmp_path):
  Image.new("L", (64, 64), 255).save(tmp_path / "all.png")
  with pytest.raises(ValueError, match=r"normal images: 16 of other content"):
    trained(root, tmp_path / "all.png", clean_run.folder)
  moved = tmp_path / place.name
  moved.write_bytes(place.read_bytes())
  assert trained(root, moved, clean_run.folder).step == clean_run.step
  assert dataclasses.asdict(clean_run.model)  # the run is as it was
