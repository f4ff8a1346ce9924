"""Other publishers' folders become those that are read (data/arranging.py)."""

import csv
import io

import numpy as np
from PIL import Image
import pytest

from nps_jax.data import arranging
from nps_jax.data import folder
from nps_jax.data import masks


def picture(path, values):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.asarray(values, np.uint8)).save(path)


def written(path, rows):
  text = io.StringIO(newline="")
  csv.writer(text).writerows([arranging.COLUMNS, *rows])
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text.getvalue(), encoding="utf-8")


def labelled(*levels):
  """A mask of 4 x 6 pixels, black but for a column of each level."""
  values = np.zeros((4, 6), np.uint8)
  values[:, : len(levels)] = levels
  return values


@pytest.fixture
def visa(tmp_path):
  """Two categories; one of the masks has two defects, at levels 1 and 4."""
  rows = []
  for name in ("candle", "pcb1"):
    images = f"{name}/Data/Images"
    for at, split in enumerate(("train", "train", "test")):
      path = f"{images}/Normal/{at:04}.JPG"
      picture(tmp_path / path, np.full((4, 6, 3), 40 * at))
      rows.append((name, split, "normal", path, ""))
    mask = f"{name}/Data/Masks/Anomaly/000.png"
    picture(tmp_path / images / "Anomaly/000.JPG", np.full((4, 6, 3), 200))
    picture(tmp_path / mask, labelled(1, 4))
    rows.append((name, "test", "anomaly", f"{images}/Anomaly/000.JPG", mask))
  written(tmp_path / "split_csv/1cls.csv", rows)
  return tmp_path


def names(place):
  return sorted(
    path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()
  )


def test_visa_is_split_as_its_table_says(visa):
  arranging.visa(visa)
  assert folder.find_categories(visa) == ("candle", "pcb1")
  assert names(visa / "candle") == [
    "ground_truth/bad/000.png",
    "test/bad/000.JPG",
    "test/good/0002.JPG",
    "train/good/0000.JPG",
    "train/good/0001.JPG",
  ]
  data = folder.open_category(visa, "candle", seed=0, validation_fraction=0.5)
  assert (len(data.train), len(data.validation), len(data.test)) == (1, 1, 2)
  (bad,) = [record for record in data.test if record.kind == "bad"]
  found = masks.read(bad, data.defects, (4, 6))
  marked = np.zeros((4, 6), bool)
  marked.ravel()[np.concatenate(found.channels)] = True
  np.testing.assert_array_equal(marked, labelled(1, 4) > 0)  # both defects


@pytest.mark.parametrize(
  ("row", "message"),
  [
    (
      ("candle", "train", "normal", "candle/9.JPG", ""),
      "9.JPG is named, and is not in",
    ),
    (("candle", "train", "normal", "../9.JPG", ""), "is named, which is no file of"),
    (
      ("candle", "test", "anomaly", "candle/Data/Images/Normal/0000.JPG", ""),
      "'' is named, which is no file",
    ),
  ],
)
def test_what_the_table_names_must_be_there(visa, row, message):
  (visa.parent / "9.JPG").write_bytes(b"outside")
  written(visa / "split_csv/1cls.csv", [row])
  with pytest.raises(ValueError, match=message):
    arranging.visa(visa)


def test_another_table_is_told(visa):
  table = visa / "split_csv/1cls.csv"
  table.write_text("file,side\nx,y\n", encoding="utf-8")
  with pytest.raises(ValueError, match=r"1cls\.csv has not the columns object, split"):
    arranging.visa(visa)
  table.unlink()
  with pytest.raises(ValueError, match=r"1cls\.csv is not in the archive"):
    arranging.visa(visa)


def test_kolektor_s_items_stay_together(tmp_path):
  for item in range(1, 11):
    for part in range(3):
      place = tmp_path / f"kos{item:02}"
      picture(place / f"Part{part}.jpg", np.full((4, 6, 3), 10 * item))
      defect = (item, part) in ((1, 0), (5, 2))
      picture(place / f"Part{part}_label.bmp", labelled(1 if defect else 0))
  arranging.kolektor_sdd(tmp_path)
  assert folder.find_categories(tmp_path) == ("kolektor_sdd",)
  data = folder.open_category(
    tmp_path, "kolektor_sdd", seed=0, validation_fraction=0.25
  )
  good = {record.id.split("/")[-1] for record in data.test if record.kind == "good"}
  bad = {record.id.split("/")[-1] for record in data.test if record.kind == "bad"}
  assert bad == {"kos01_Part0", "kos05_Part2"}
  assert good == {"kos05_Part0", "kos05_Part1"} | {f"kos10_Part{i}" for i in range(3)}
  assert len(data.train) + len(data.validation) == 30 - 7
  assert sorted(path.name for path in tmp_path.iterdir()) == ["kolektor_sdd"]


def test_kolektor_s_images_need_their_masks(tmp_path):
  with pytest.raises(ValueError, match="no folders of items"):
    arranging.kolektor_sdd(tmp_path)
  picture(tmp_path / "kos01/Part0.jpg", np.zeros((4, 6, 3)))
  with pytest.raises(ValueError, match=r"kos01/Part0\.jpg has no Part0_label\.bmp"):
    arranging.kolektor_sdd(tmp_path)
  (tmp_path / "kos01/Part0_label.bmp").write_bytes(b"no picture")
  with pytest.raises(ValueError, match=r"Part0_label\.bmp cannot be read"):
    arranging.kolektor_sdd(tmp_path)
