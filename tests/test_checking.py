"""All that a run will read, read before its first step."""

import hashlib
import pathlib

import numpy as np
from PIL import Image
import pytest

from nps_jax.data import checking
from nps_jax.data import records

SIZE = (6, 9)
DEFECTS = (records.Defect("missing", 255, 0.5, True),)


def save(path, value, size=SIZE):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.zeros(size, np.uint8)
  pixels[1:3, 1:4] = value
  Image.fromarray(pixels).save(path)
  return path


def record(image, split="train", kind=records.GOOD, masks=()):
  return records.Record(f"nuts/{split}/{kind}/0", "nuts", split, kind, image, masks)


def dataset(folder, masks=(), layout="loco", defects=DEFECTS):
  """Two images of each split, the last of them anomalous."""
  paths = [save(folder / f"{at}.png", 99) for at in range(6)]
  test = [record(paths[4], "test"), record(paths[5], "test", "dent", tuple(masks))]
  return records.Dataset(
    *("nuts", layout, tuple(record(each) for each in paths[:2])),
    *(tuple(record(each, "validation") for each in paths[2:4]), tuple(test), defects),
  )


def cut(path: pathlib.Path, length: int) -> None:
  path.write_bytes(path.read_bytes()[:length])


def told(*datasets):
  with pytest.raises(ValueError) as caught:
    checking.check(datasets)
  return str(caught.value).splitlines()


def test_whole_data_sets_pass(tmp_path):
  mask = save(tmp_path / "m" / "0.png", 255)
  checking.check([dataset(tmp_path, [mask])])
  checking.check([dataset(tmp_path)._replace(test=())])
  checking.check([])


@pytest.mark.parametrize("at", range(6))
def test_every_split_is_read_to_its_last_pixel(tmp_path, at):
  data = dataset(tmp_path, [save(tmp_path / "m" / "0.png", 255)])
  path = tmp_path / f"{at}.png"
  cut(path, path.read_bytes().index(b"IDAT") + 10)  # the header is whole
  head, line = told(data)
  assert head == "1 of the 7 image and mask files cannot be used:"
  assert line.startswith(f"{path} cannot be read (") and "truncated" in line


def test_every_bad_file_is_told_in_order_each_mask_by_itself(tmp_path):
  masks = [save(tmp_path / "m" / f"{at}.png", 255) for at in range(5)]
  data = dataset(tmp_path, masks)
  other = dataset(tmp_path / "other", [save(tmp_path / "o.png", 8)])
  other = other._replace(
    category="bolts",
    defects=(DEFECTS[0]._replace(pixel_value=8),),
    test=tuple(each._replace(category="bolts") for each in other.test),
    train=tuple(each._replace(category="bolts") for each in other.train),
    validation=tuple(each._replace(category="bolts") for each in other.validation),
  )
  save(masks[0], 255, (9, 6))
  save(masks[1], 8)
  save(masks[3], 0)
  cut(tmp_path / "5.png", 60)  # the masks' image, in its pixels
  (tmp_path / "0.png").write_bytes(b"")
  (tmp_path / "other" / "3.png").unlink()
  found = told(data, other)
  names = ["0.png", "5.png", "m/0.png", "m/1.png", "m/3.png", "other/3.png"]
  assert found[0] == "6 of the 18 image and mask files cannot be used:"
  assert [line.split(" ")[0] for line in found[1:]] == [
    str(tmp_path / name) for name in names
  ]
  for line, reason in zip(
    found[1:],
    (
      *("it is empty", "truncated", "is 9 x 6 (height x width) but its image is 6 x 9"),
      *("the value 8, which", "is empty", "No such file"),
    ),
    strict=True,
  ):
    assert reason in line
  parts = [
    checking.examine(
      checking.all_records([data, other])[at::2],
      {"nuts": data.defects, "bolts": other.defects},
    ).bad
    for at in range(2)
  ]
  assert sorted(parts[0] + parts[1]) == sorted(found[1:])  # as hosts may share them


def test_masks_are_judged_even_without_their_image(tmp_path):
  masks = [
    save(tmp_path / "m" / f"{at}.png", value) for at, value in enumerate((255, 9))
  ]
  data = dataset(tmp_path, masks)
  (tmp_path / "5.png").write_bytes(b"")
  assert [line.split(" ")[0] for line in told(data)[1:]] == [
    str(tmp_path / "5.png"),
    str(masks[1]),
  ]


def test_without_defects_any_value_marks_an_anomaly(tmp_path):
  mask = save(tmp_path / "m" / "0.png", 9)
  checking.check([dataset(tmp_path, [mask], "mvtec_ad", ())])
  assert "holds the value 9" in told(dataset(tmp_path, [mask]))[1]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_validation_images_are_told_before_training(tmp_path, count):
  data = dataset(tmp_path)
  data = data._replace(validation=data.validation[:count])
  (line,) = told(dataset(tmp_path)._replace(test=()), data)
  assert line.startswith(f"nuts has {count} validation image")
  assert "needs 2 or more" in line and "validation_fraction" in line


def test_images_are_known_by_their_content_whatever_their_place(tmp_path):
  data = named(dataset(tmp_path / "one"))
  want = {
    each.id: hashlib.sha256(each.image.read_bytes()).hexdigest()
    for each in (*data.train, *data.validation)
  }
  assert checking.digests([data]) == want and len(want) == 4
  moved = named(dataset(tmp_path / "two"))
  assert checking.digests([moved]) == want
  in_memory = [each._replace(image=each.image.read_bytes()) for each in moved.train]
  assert checking.digests([moved._replace(train=tuple(in_memory))]) == want
  assert checking.digests([moved._replace(test=())]) == want
  assert len(checking.digests([moved._replace(validation=())])) == 2
  save(moved.train[0].image, 1)
  assert checking.digests([moved])[moved.train[0].id] != want[moved.train[0].id]


def named(data):
  """The data set with an id for each image."""
  splits = {
    split: tuple(
      each._replace(id=f"nuts/{split}/good/{at}")
      for at, each in enumerate(getattr(data, split))
    )
    for split in ("train", "validation")
  }
  return data._replace(**splits)


def test_normal_images_of_one_colour_are_named_and_others_pass(tmp_path, caplog):
  """Not those of the test split: that one is a finding."""
  data = dataset(tmp_path)
  checking.check([data])
  assert "one colour" not in caplog.text
  for at in (1, 3, 4):
    Image.new("RGB", (9, 6), (7, 8, 9)).save(tmp_path / f"{at}.png")
  checking.check([data])
  assert "2 normal images are of one colour all over" in caplog.text
  named = [f"{at}.png" in caplog.text for at in range(6)]
  assert named == [False, True, False, True, False, False]


def test_copies_among_the_normal_images_are_told(tmp_path, caplog):
  data = named(dataset(tmp_path))
  checking.digests([data])
  assert "Of 4 normal images 3 are copies of others" in caplog.text
  caplog.clear()
  for at in range(4):
    save(tmp_path / f"{at}.png", 50 + at)
  checking.digests([data])
  assert "copies" not in caplog.text
