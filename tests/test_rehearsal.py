"""The rehearsal's data: LOCO's counts, sizes and layout; whole, or gone on with."""

import contextlib
import json

import numpy as np
from PIL import Image
import pytest

from nps_jax.data import folder
from nps_jax.data import masks
from nps_jax.data import records
from nps_jax.drawn import rehearsal

LOCO = {  # of the data set as its publisher gives it
  "box": (351, 62, 102, 83, 90),
  "bottle": (335, 54, 94, 142, 94),
  "tray": (372, 69, 138, 91, 81),
  "bag": (360, 60, 122, 137, 82),
  "tray_wide": (360, 60, 119, 108, 85),
}
SPLITS = ("train", "validation", "good", "logical", "structural")


@pytest.fixture
def small(monkeypatch):
  """Sizes of a few pixels, and products drawn small, in this process."""
  for name, product in rehearsal.PRODUCTS.items():
    size = tuple(side // 20 for side in product.size)
    changed = product._replace(size=size, **dict.fromkeys(SPLITS, 9))
    monkeypatch.setitem(rehearsal.PRODUCTS, name, changed)
  monkeypatch.setattr(rehearsal, "SIDE", 64)

  class Here:
    """Stands for a pool of processes, which would not see the sizes changed."""

    @staticmethod
    def map(work, *values, chunksize):
      return map(work, *values)

  here = contextlib.nullcontext(Here())
  pool = rehearsal.concurrent.futures
  monkeypatch.setattr(pool, "ProcessPoolExecutor", lambda *_: here)


def contents(place):
  return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", LOCO)
def test_a_whole_product_has_loco_s_counts(name):
  jobs = list(rehearsal._jobs(rehearsal.PRODUCTS[name], 1.0))
  kinds = [job.kind if job.split == "test" else job.split for job in jobs]
  names = ("train", "validation", records.GOOD, records.LOGICAL, records.STRUCTURAL)
  assert tuple(kinds.count(kind) for kind in names) == LOCO[name]
  assert len(jobs) == sum(LOCO[name])
  places = [(job.split, job.kind, job.name) for job in jobs]
  assert len(set(places)) == len(jobs)
  flaws = {flaw.name: flaw.logical for flaw in rehearsal.PRODUCTS[name].drawn.FLAWS}
  for job in jobs:
    wanted = {records.LOGICAL: True, records.STRUCTURAL: False}.get(job.kind)
    assert [flaws[flaw] for flaw in job.flaws] == [wanted] * len(job.flaws)
    assert bool(job.flaws) == (wanted is not None)
  assert {flaw for job in jobs for flaw in job.flaws} == set(flaws)


def test_the_sum_is_loco_s():
  assert [sum(column) for column in zip(*LOCO.values(), strict=True)] == [
    *(1778, 305, 575, 561, 432)
  ]
  sizes = {name: product.size for name, product in rehearsal.PRODUCTS.items()}
  assert sizes == {
    "box": (1280, 1600),
    "bottle": (1600, 800),
    "tray": (1000, 1700),
    "bag": (1100, 1600),
    "tray_wide": (850, 1700),
  }


def test_our_reader_finds_the_loco_layout_at_the_size(small, tmp_path):
  assert rehearsal.write(tmp_path) == list(LOCO)
  for name in LOCO:
    product = rehearsal.PRODUCTS[name]
    data = folder.open_category(tmp_path, name)
    assert (data.layout, len(data.train), len(data.validation)) == ("loco", 9, 9)
    several = 0
    for record in (*data.train, *data.test):
      with Image.open(record.image) as image:
        assert (image.mode, image.size) == ("RGB", product.size[::-1])
      if record.kind != records.GOOD and record.masks:
        truth = masks.read(record, data.defects, product.size)
        assert len(truth.channels) == len(record.masks) > 0
        several += len(record.masks) > 1
    assert several > 0  # an image with two defects has two channels


def test_saturation_is_of_the_full_size_and_masks_keep_their_values(small, tmp_path):
  rehearsal.write(tmp_path)
  height, width = rehearsal.PRODUCTS["tray_wide"].size
  entries = json.loads((tmp_path / "tray_wide/defects_config.json").read_text())
  assert entries[0] == {
    "defect_name": "missing_pin",
    "pixel_value": 255,
    "saturation_threshold": round(0.0052 * height * width),
    "relative_saturation": False,
  }
  for path in (tmp_path / "tray_wide/ground_truth").rglob("*.png"):
    values = np.unique(np.asarray(Image.open(path))).tolist()
    assert len(values) == 2 and values[0] == 0 and values[1] >= 250


def test_what_is_there_stays_and_the_rest_is_the_same(small, tmp_path):
  rehearsal.write(tmp_path, share=0.5)
  before = contents(tmp_path)
  rehearsal.shutil.rmtree(tmp_path / "bag")
  assert rehearsal.write(tmp_path, share=0.5) == ["bag"]
  assert contents(tmp_path) == before
  assert len(list((tmp_path / "bag/train/good").iterdir())) == round(0.5 * 9)


def test_a_product_is_whole_or_absent(small, tmp_path, monkeypatch):
  save, saved = rehearsal.synthetic.save, []

  def full(path, *values, **named):
    if len(saved) == 5:
      raise OSError(28, "No space left on device")
    saved.append(path)
    save(path, *values, **named)

  monkeypatch.setattr(rehearsal.synthetic, "save", full)
  with pytest.raises(SystemExit, match=r"Error: .*No space left"):
    rehearsal.main([f"--out={tmp_path}"])
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("share", ["0", "-1", "1.5"])
def test_wrong_shares_are_refused(tmp_path, share):
  with pytest.raises(SystemExit, match=r"--share is .*; expected more than 0 and at m"):
    rehearsal.main([f"--out={tmp_path / 'x'}", f"--share={share}"])
  assert not (tmp_path / "x").exists()


def test_a_file_is_no_place(tmp_path):
  (tmp_path / "x").write_text("")
  with pytest.raises(SystemExit, match="x is a file; expected a folder"):
    rehearsal.main([f"--out={tmp_path / 'x'}"])
