"""A LOCO tree, packed or not, becomes a tfds data set (data/tfds_loco.py)."""

import functools
import json
import shutil
import subprocess
import sys
import tarfile

import ml_collections
import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from nps_jax.data import decoding
from nps_jax.data import encoded
from nps_jax.data import folder
from nps_jax.data import masks
from nps_jax.data import prepared
from nps_jax.data import tfds_loco
from nps_jax.drawn import synthetic

FEW = synthetic.Counts(train=3, validation=2, good=2, per_flaw=1)
COUNTS = FEW._replace(per_flaw=3)  # some images with two flaws
NAMES = ("bottle", "tray")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
  """A drawn data set."""
  root = tmp_path_factory.mktemp("tree")
  synthetic.write(root, NAMES, size=64, counts=COUNTS)
  return root


def packed(folder, path, inside="."):
  with tarfile.open(path, "w:xz") as tar:
    tar.add(folder, inside)
  return path


def opened(root, category="all"):
  config = ml_collections.ConfigDict({"root": str(root), "category": category})
  config.layout = "auto"
  return prepared.open_all(config)


def content(image):
  with encoded.opened(image) as file:
    return file.read()


def assert_same(found, wanted):
  """The same records, down to the bytes of each image and mask."""
  for split in ("train", "validation", "test"):
    for one, other in zip(getattr(found, split), getattr(wanted, split), strict=True):
      assert one[:4] == other[:4]
      assert content(one.image) == content(other.image)
      assert list(map(content, one.masks)) == list(map(content, other.masks))
      np.testing.assert_array_equal(decoding.decode(one), decoding.decode(other))
      size = decoding.original_size(one)
      assert size == decoding.original_size(other)
      truths = [masks.read(each, found.defects, size) for each in (one, other)]
      channels = [[each.tolist() for each in truth.channels] for truth in truths]
      assert channels[0] == channels[1]
      np.testing.assert_array_equal(truths[0].saturation, truths[1].saturation)
      assert truths[0].names == truths[1].names
  assert found._replace(train=(), validation=(), test=()) == wanted._replace(
    train=(), validation=(), test=()
  )


def place(root, form, folder):
  """The data set of two categories in each of the forms that a source may have."""
  if form == "folder":
    return root
  if form == "wrapped":
    shutil.copytree(root, folder / "wrapped" / "mvtec_loco_anomaly_detection")
    return folder / "wrapped"
  return packed(root, folder / "loco.tar.xz", "." if form == "tar.xz" else "loco")


@pytest.mark.parametrize("form", ["folder", "wrapped", "tar.xz", "wrapped tar.xz"])
def test_the_same_records_come_from_every_source(tree, tmp_path, form):
  source = place(tree, form, tmp_path)
  before = sorted(tmp_path.iterdir())
  assert tfds_loco.prepare(str(source), tmp_path / "out") == NAMES
  assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "out"])
  assert [each.name for each in (tmp_path / "out").iterdir()] == [prepared.NAME]
  found = opened(tmp_path / "out")
  assert [each.category for each in found] == list(NAMES)
  for each in found:
    assert any(len(record.masks) == 2 for record in each.test)
    assert_same(each, folder.open_category(tree, each.category))


def test_a_single_category_is_a_source_too(tree, tmp_path):
  tfds_loco.prepare(str(tree / "tray"), tmp_path / "a")
  tfds_loco.prepare(
    str(packed(tree / "tray", tmp_path / "tray.tar.xz")), tmp_path / "b"
  )
  tfds_loco.prepare(str(tree), tmp_path / "c", "tray")
  for name in "abc":
    (found,) = opened(tmp_path / name)
    assert_same(found, folder.open_category(tree, "tray"))


def test_locos_own_categories_have_configs(tree, tmp_path):
  """A category of LOCO's name takes the class's config, and tfds finds it by name."""
  shutil.copytree(tree / "tray", tmp_path / "source" / "pushpins")
  tfds_loco.prepare(str(tmp_path / "source"), tmp_path / "out")
  builder = tfds_loco.MvtecLoco(config="pushpins", data_dir=tmp_path / "out")
  wanted = folder.open_category(tmp_path / "source", "pushpins")
  assert_same(opened(tmp_path / "out")[0], wanted)
  assert set(tfds_loco.MvtecLoco.builder_configs) == set(tfds_loco.CATEGORIES)
  pixels = [each["image"] for each in builder.as_data_source("test")]
  for found, record in zip(pixels, wanted.test, strict=True):
    np.testing.assert_array_equal(found, decoding.decode(record))
  masked = builder.as_data_source("test")[len(wanted.test) - 1]
  for found, path in zip(masked["masks"], wanted.test[-1].masks, strict=True):
    np.testing.assert_array_equal(found[..., 0], np.asarray(Image.open(path)))


def test_images_are_not_encoded_again(tmp_path):
  """A JPEG under its own name, and a PNG as no encoder here would write it."""
  synthetic.write(tmp_path / "data", ("tray",), size=64, counts=FEW)
  place = tmp_path / "data" / "tray" / "train" / "good"
  Image.open(place / "000.png").save(place / "000.jpg", quality=70)
  (place / "000.png").unlink()
  Image.open(place / "001.png").save(place / "001.png", compress_level=0)
  tfds_loco.prepare(str(tmp_path / "data"), tmp_path / "out")
  (found,) = opened(tmp_path / "out")
  assert content(found.train[0].image) == (place / "000.jpg").read_bytes()
  assert content(found.train[1].image) == (place / "001.png").read_bytes()
  assert_same(found, folder.open_category(tmp_path / "data", "tray"))


def test_the_order_holds_over_several_files(tree, tmp_path, monkeypatch):
  """Large data sets are written in several files; this one is made to be."""
  many = functools.partial(tfds.download.DownloadConfig, num_shards=2)
  monkeypatch.setattr(tfds.download, "DownloadConfig", many)
  tfds_loco.prepare(str(tree), tmp_path, "tray")
  assert len(list(tmp_path.rglob("*-test.array_record-*-of-00002"))) == 2
  assert_same(opened(tmp_path)[0], folder.open_category(tree, "tray"))


def test_nothing_is_overwritten(tree, tmp_path):
  tfds_loco.prepare(str(tree), tmp_path, "tray")
  files = {each: each.stat() for each in tmp_path.rglob("*") if each.is_file()}
  for category in ("all", "tray", "tray,bottle"):
    with pytest.raises(ValueError, match=r"^Prepared already: .*tray/1\.0\.0\. Remove"):
      tfds_loco.prepare(str(tree), tmp_path, category)
  for each, stat in files.items():
    assert each.stat().st_mtime_ns == stat.st_mtime_ns
  assert not (tmp_path / prepared.NAME / "bottle").exists()
  assert tfds_loco.prepare(str(tree), tmp_path, "bottle") == ("bottle",)
  assert len(opened(tmp_path)) == 2


def test_wrong_sources_are_refused(tree, tmp_path):
  out = tmp_path / "out"
  (tmp_path / "empty").mkdir()
  plain = tmp_path / "plain"
  shutil.copytree(tree / "tray" / "train", plain / "nuts" / "train")
  with tarfile.open(tmp_path / "evil.tar", "w") as tar:
    tar.addfile(tarfile.TarInfo("../evil"))
  (tmp_path / "no.tar.xz").write_bytes(b"no archive")
  for source, category, message in (
    (tmp_path / "lost", "all", r"lost does not exist; .* holds .*plain/"),
    (tmp_path / "empty", "all", r"empty holds no category of .*, found nothing"),
    (
      plain,
      "all",
      r"nuts is not in the layout .* lacks validation, test, defects_conf",
    ),
    (
      tree,
      "trya",
      r"The category is 'trya'; .* has bottle, tray\. Did you mean 'tray'",
    ),
    (tmp_path / "evil.tar", "all", r"evil\.tar is not safe to unpack"),
    (tmp_path / "no.tar.xz", "all", r"no\.tar\.xz is damaged, cut short, or no tar"),
  ):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
      tfds_loco.prepare(str(source), out, category)
  assert not out.exists() and not list(tmp_path.glob(".*"))


def test_a_category_with_a_fault_is_not_prepared(tmp_path):
  synthetic.write(tmp_path / "data", NAMES, size=64, counts=FEW)
  tray = tmp_path / "data" / "tray"
  config, image = tray / "defects_config.json", tray / "test" / "good" / "001.png"
  masked = next((tray / "ground_truth" / "logical_anomalies").iterdir())
  for path, change, message in (
    (
      image,
      lambda: image.write_bytes(b"words"),
      r"1 of the \d+ image and.*\n.*001\.png can",
    ),
    (config, lambda: config.write_text("[]"), "must hold a list of defects"),
    (masked, lambda: shutil.rmtree(masked), "1 anomalous images have no mask"),
  ):
    shutil.copytree(tray, tmp_path / "kept")
    change()
    with pytest.raises(ValueError, match=message):
      tfds_loco.prepare(str(tmp_path / "data"), tmp_path / "out")
    assert path.exists() or path is masked
    assert not (tmp_path / "out").exists()
    shutil.rmtree(tray)
    (tmp_path / "kept").rename(tray)
  shutil.rmtree(tray / "test")
  (tray / "test").mkdir()
  shutil.rmtree(tray / "ground_truth")
  with pytest.raises(ValueError, match=r"tray/test holds no images; a prepared"):
    tfds_loco.prepare(str(tmp_path / "data"), tmp_path / "out")


def test_a_failure_while_writing_leaves_no_category(tree, tmp_path, monkeypatch):
  def fail(self, images):
    yield from ()
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(tfds_loco.MvtecLoco, "_generate_examples", fail)
  with pytest.raises(OSError, match="No space left"):
    tfds_loco.prepare(str(tree), tmp_path / "out", "tray")
  assert not list(tmp_path.rglob("*record*"))
  with pytest.raises(FileNotFoundError, match="where no data are prepared"):
    opened(tmp_path / "out")


def test_the_command_needs_no_tensorflow(tree, tmp_path):
  """It prepares an archive, and the images are read, in processes of their own."""
  source, out = packed(tree, tmp_path / "loco.tar.xz"), tmp_path / "out"
  command = ["-m", "nps_jax.data.tfds_loco", f"--source={source}", f"--out={out}"]
  assert run([*command, "--category=tray"])[-1] == f"tray prepared in {out}"
  code = f"""
import json, pathlib, sys
from nps_jax import config
from nps_jax.data import decoding, sources, tfds_loco
tfds_loco.prepare({str(tree)!r}, pathlib.Path({str(out)!r}), "bottle")
settings = config.defaults().data
settings.source, settings.root = "tfds", {str(out)!r}
test = [record for data in sources.open_all(settings, 0) for record in data.test]
pixels = [decoding.decode(record) for record in test]
print(json.dumps([len(pixels), *(name.partition(".")[0] for name in sys.modules)]))
"""
  count, *modules = json.loads(run(["-c", code])[-1])
  assert count == sum(len(folder.open_test_split(tree, name).test) for name in NAMES)
  assert "tensorflow_datasets" in modules and "tensorflow" not in modules


def run(arguments):
  """The lines that Python prints."""
  done = subprocess.run(
    [sys.executable, *arguments], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.splitlines()


def test_the_command_ends_with_the_reason(tree, tmp_path, capsys):
  flags = [f"--source={tree}", f"--out={tmp_path}"]
  with pytest.raises(
    SystemExit, match=r"^Error: The category is 'nuts'; .* has bottle"
  ):
    tfds_loco.main([*flags, "--category=nuts"])
  for left_out in (0, 1):
    with pytest.raises(SystemExit):
      tfds_loco.main([flags[1 - left_out]])
  assert "the following arguments are required: --out" in capsys.readouterr().err


def test_tfds_asks_for_the_folder(tmp_path):
  builder = tfds_loco.MvtecLoco(config="pushpins", data_dir=tmp_path / "out")
  options = tfds.download.DownloadConfig(manual_dir=tmp_path / "lost")
  with pytest.raises(AssertionError, match="The folder that the archive of MVTec LOCO"):
    builder.download_and_prepare(download_config=options, file_format="array_record")
