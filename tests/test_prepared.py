"""Prepared data sets: what can be wrong with them, and many readers at once."""

from concurrent import futures
import json
import shutil

import ml_collections
import pytest

from nps_jax.data import decoding
from nps_jax.data import folder
from nps_jax.data import masks
from nps_jax.data import pipeline
from nps_jax.data import prepared
from nps_jax.data import tfds_loco
from nps_jax.drawn import synthetic

COUNTS = synthetic.Counts(  # some with two flaws
  train=5, validation=2, good=2, per_flaw=3
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
  """A drawn data set."""
  root = tmp_path_factory.mktemp("tree")
  synthetic.write(root, ("tray", "bottle"), size=64, counts=COUNTS)
  return root


@pytest.fixture(scope="module")
def data_dir(tree, tmp_path_factory):
  """The same, prepared."""
  place = tmp_path_factory.mktemp("prepared")
  tfds_loco.prepare(str(tree), place)
  return place


@pytest.fixture
def copy(data_dir, tmp_path):
  """A copy of it that may be spoilt."""
  shutil.copytree(data_dir, tmp_path / "copy")
  return tmp_path / "copy"


def settings(root, category="all", layout="auto"):
  return ml_collections.ConfigDict(
    {"root": str(root), "category": category, "layout": layout}
  )


def everything(data):
  return [*data.train, *data.validation, *data.test]


def test_the_categories_asked_for_come_in_their_order(data_dir):
  for category, wanted in (
    ("all", ["bottle", "tray"]),
    ("tray", ["tray"]),
    ("tray, bottle", ["tray", "bottle"]),
  ):
    found = prepared.open_all(settings(data_dir, category))
    assert [each.category for each in found] == wanted
  assert prepared.open_all(settings(data_dir, layout="loco"))[1].layout == "loco"


def test_wrong_settings_are_refused(data_dir, tree, tmp_path, monkeypatch):
  with pytest.raises(
    ValueError, match=r"'trya'; .* has bottle, tray\. Did you mean 'tr"
  ):
    prepared.open_all(settings(data_dir, "trya"))
  for layout in ("plain", "mvtec_ad"):
    with pytest.raises(ValueError, match=f"config.data.layout is '{layout}', but prep"):
      prepared.open_all(settings(data_dir, layout=layout))
  for place, held in ((tree, "bottle/, tray/"), (tmp_path / "lost", "nothing")):
    with pytest.raises(FileNotFoundError, match="where no data are prep") as caught:
      prepared.open_all(settings(place))
    assert f"{str(place)!r}" in str(caught.value) and held in str(caught.value)
    assert "python -m nps_jax.data.tfds_loco --source=SOURCE" in str(caught.value)
  monkeypatch.chdir(data_dir)
  with pytest.raises(FileNotFoundError, match=r"config\.data\.root is '', where no"):
    prepared.open_all(settings(""))


def test_opening_reads_no_image(data_dir, tree, monkeypatch):
  """Ids, kinds and masks are known without; each image is read when it is decoded."""
  kind = prepared.tfds.core.data_sources.array_record.ArrayRecordDataSource
  read, seen = kind.__getitem__, []

  def counted(self, key):
    seen.append(key)
    return read(self, key)

  monkeypatch.setattr(kind, "__getitem__", counted)
  found = prepared.open_category(data_dir, "tray")
  wanted = folder.open_category(tree, "tray")
  assert [(each[:4], len(each.masks)) for each in everything(found)] == [
    (each[:4], len(each.masks)) for each in everything(wanted)
  ]
  assert not seen
  decoding.decode(found.test[3])
  assert seen == [3]


def test_many_threads_read_at_once(data_dir, tree):
  found = everything(prepared.open_category(data_dir, "bottle"))
  wanted = everything(folder.open_category(tree, "bottle"))
  pairs = [
    pair
    for one, other in zip(found, wanted, strict=True)
    for pair in zip((one.image, *one.masks), (other.image, *other.masks), strict=True)
  ] * 20

  def same(pair):
    stored, path = pair
    return stored.read() == path.read_bytes()

  with futures.ThreadPoolExecutor(16) as pool:
    assert all(pool.map(same, pairs))
  options = {"batch_size": 4, "size": (32, 32), "seed": 0}
  batches = [
    pipeline.train_batches(
      images, [0] * len(images), **options, threads=threads, cache=False
    )
    for images, threads in ((found, 8), (wanted, 1))
  ]
  for _ in range(12):
    one, other = map(next, batches)
    assert (one.image == other.image).all() and (one.index == other.index).all()


def test_images_have_a_name(data_dir):
  data = prepared.open_category(data_dir, "tray")
  place = data_dir / "mvtec_loco" / "tray" / "1.0.0"
  last = data.test[-1]
  assert str(last.image) == f"{last.id} in {place}"
  assert str(last.masks[1]) == f"Mask 1 of {last.id} in {place}"


def flip(path, at):
  content = bytearray(path.read_bytes())
  content[at] ^= 255
  path.write_bytes(content)


def test_damaged_records_are_named(copy):
  place = copy / "mvtec_loco" / "tray" / "1.0.0"
  (test,) = place.glob("*test.array_record*")
  flip(test, test.stat().st_size // 2)
  data = prepared.open_category(copy, "tray")
  bad = decoding.problems(data.test)
  assert 1 <= len(bad) < len(data.test)
  for record, why in bad:
    assert why.startswith(f"{record.id} in {place} cannot be read (")
    assert ": its example is damaged" in why
  spoilt = [record for record, _ in bad if record.masks]
  for record in spoilt:
    with pytest.raises(ValueError, match=f"Mask 0 of {record.id} in .* cannot be read"):
      masks.read(record, data.defects, (64, 64))
  assert spoilt


def test_another_order_is_noticed(copy):
  """The list of records and the examples must agree."""
  about = copy / "mvtec_loco" / "tray" / "1.0.0" / "metadata.json"
  content = json.loads(about.read_text())
  content["records"]["train"].reverse()
  about.write_text(json.dumps(content))
  data = prepared.open_category(copy, "tray")
  with pytest.raises(ValueError, match=r"in its place is b'tray/train/good/000'; prep"):
    decoding.decode(data.train[0])


def test_incomplete_data_are_refused(copy):
  place = copy / "mvtec_loco" / "tray" / "1.0.0"
  about = json.loads((place / "metadata.json").read_text())
  short = about | {"records": about["records"] | {"train": []}}
  for name, content, message in (
    ("metadata.json", None, "is damaged .*defects.* Remove it and prepare the data"),
    ("metadata.json", "{", "is damaged "),
    ("metadata.json", json.dumps(short), "train has 5 examples instead of 0"),
    ("features.json", None, "is damaged "),
    ("dataset_info.json", "{", "is damaged "),
    (
      "mvtec_loco-test.array_record-00000-of-00001",
      None,
      "missing are .*-test.array_r",
    ),
  ):
    kept = (place / name).read_bytes()
    (place / name).unlink()
    if content is not None:
      (place / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
      prepared.open_all(settings(copy, "tray"))
    assert str(place) in str(caught.value)
    (place / name).write_bytes(kept)
  assert prepared.open_all(settings(copy, "tray"))
