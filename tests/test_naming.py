"""Trees as people have them: names of splits and kinds, folders within folders."""

import json
import pathlib
import unicodedata

import ml_collections
import numpy as np
from PIL import Image
import pytest

from nps_jax.data import folder
from nps_jax.data import naming
from nps_jax.data import records
from nps_jax.metrics import category

MASK = np.zeros((6, 8), np.uint8)
MASK[1:3, 2:5] = 255


def save(path, pixels=MASK):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path)
  return path


def tree(root, *names):
  """Images of these names; those with _mask in them are masks."""
  for name in names:
    save(root / name, MASK if naming.MASK in name else 0 * MASK + 9)
  return root


def kinds(data):
  return {(each.id, each.kind) for each in data.test}


@pytest.mark.parametrize("name", ["validation", "val", "Valid"])
def test_a_validation_folder_has_one_of_its_usual_names(tmp_path, name):
  names = [f"train/good/{at}.png" for at in range(3)] + [f"{name}/good/x.png"]
  data = folder.open_category(tree(tmp_path, *names), "all")
  assert len(data.train) == 3
  assert [each.image.stem for each in data.validation] == ["x"]


def test_two_folders_of_one_split_are_refused(tmp_path):
  tree(tmp_path, "train/good/0.png", "train/good/1.png", "val/0.png", "valid/0.png")
  with pytest.raises(ValueError, match="has val, valid, which all mean validation"):
    folder.open_category(tmp_path, "all")


def test_folders_within_are_read_and_their_names_stay_apart(tmp_path):
  names = [f"train/good/{place}{at}.png" for place in ("", "night/") for at in range(4)]
  data = folder.open_category(tree(tmp_path / "nuts", *names), "nuts")
  found = {each.id for each in (*data.train, *data.validation)}
  held_out = {each.id.replace("validation", "train") for each in data.validation}
  assert len(found) == 8 and held_out <= {f"nuts/{name[:-4]}" for name in names}
  assert {each.id for each in data.train} <= {f"nuts/{name[:-4]}" for name in names}


def test_a_kind_has_its_images_in_folders_of_dates_with_masks_likewise(tmp_path):
  names = ["train/good/0.png", "train/good/1.png", "test/good/0.png"]
  names += ["test/scratch/may/0.png", "test/scratch/june/0.png"]
  truth = [f"ground_truth/scratch/{month}/0_mask.png" for month in ("may", "june")]
  data = folder.open_category(tree(tmp_path / "nuts", *names, *truth), "nuts")
  assert data.layout == "mvtec_ad"
  masks = {each.id: each.masks for each in data.test if each.masks}
  place = tmp_path / "nuts/ground_truth/scratch"
  assert masks == {
    f"nuts/test/scratch/{month}/0": (place / month / "0_mask.png",)
    for month in ("may", "june")
  }


@pytest.mark.parametrize("name", ["good", "Good", "OK", "ok", "normal"])
def test_the_usual_words_for_normal_are_known(tmp_path, name):
  names = [f"train/{name}/{at}.png" for at in range(3)]
  names += [f"test/{name}/0.png", "test/ko/0.png"]
  data = folder.open_category(tree(tmp_path / "nuts", *names), "nuts")
  assert len(data.train) + len(data.validation) == 3
  assert kinds(data) == {
    (f"nuts/test/{name}/0", records.GOOD),
    ("nuts/test/ko/0", "ko"),
  }


def test_a_category_is_known_by_its_normal_test_images(tmp_path):
  tree(tmp_path, "test/OK/0.png", "test/ko/0.png")
  assert folder.find_categories(tmp_path) == (tmp_path.name,)


def test_masks_beside_their_images_are_masks(tmp_path):
  names = ["train/good/0.png", "train/good/1.png", "test/good/0.png"]
  names += ["test/dent/0.png", "test/dent/0_mask.png"]
  tree(tmp_path / "nuts", *names)
  data = folder.open_category(tmp_path / "nuts", "all")
  assert data.layout == "mvtec_ad"
  assert kinds(data) == {
    ("nuts/test/good/0", records.GOOD),
    ("nuts/test/dent/0", "dent"),
  }
  (one,) = [each for each in data.test if each.masks]
  assert one.masks == (tmp_path / "nuts/test/dent/0_mask.png",)
  # Without an image of its name, such a name is an image's own.
  save(tmp_path / "nuts/test/dent/gas_mask.png")
  plain = folder.open_category(tmp_path / "nuts", "all", layout="plain")
  assert "nuts/test/dent/gas_mask" in {each.id for each in plain.test}


def test_files_of_phones_are_images(tmp_path):
  tree(tmp_path, "train/good/0.png", "train/good/1.png")
  Image.fromarray(MASK).save(tmp_path / "train/good/2.jfif", "JPEG")
  data = folder.open_category(tmp_path, "all")
  assert len(data.train) + len(data.validation) == 3


def test_names_that_look_the_same_are_the_same(tmp_path):
  """An image named in one Unicode form, its mask in another."""
  one, other = (unicodedata.normalize(form, "schön") for form in ("NFD", "NFC"))
  assert one != other
  names = ["train/good/0.png", "train/good/1.png", "test/good/0.png"]
  tree(tmp_path, *names, f"test/dent/{one}.png", f"ground_truth/dent/{other}_mask.png")
  data = folder.open_category(tmp_path, "all")
  assert [len(each.masks) for each in data.test if each.kind == "dent"] == [1]


def test_a_name_may_have_commas(tmp_path):
  known = ["Schraube M2,5", "Schraube M3", "a", "a,b,c"]
  assert naming.split_names("Schraube M2,5", known) == ["Schraube M2,5"]
  assert naming.split_names("a, Schraube M2,5,a", known) == ["a", "Schraube M2,5"]
  assert naming.split_names("a,b,c,a", known) == ["a,b,c", "a"]
  assert naming.split_names(" x,,y", known) == ["x", "y"]
  for name in known[:2]:
    tree(tmp_path / name, "train/good/0.png", "train/good/1.png")
  assert folder.resolve(tmp_path, "all") == tuple(known[:2])
  assert folder.resolve(tmp_path, "Schraube M3,Schraube M2,5") == (known[1], known[0])
  config = ml_collections.ConfigDict(
    {"root": str(tmp_path), "category": known[0], "layout": "auto"}
    | {"validation_fraction": 0.1}
  )
  assert [each.category for each in folder.open_all(config, 0)] == [known[0]]


AUTOVI = {
  "defect_name": "missing_screw",
  "pixel_value": 255,
  "saturation_threshold": 1.0,
  "relative_saturation": True,
}
FORMS = {  # of other data sets: where an anomalous image and its mask lie, the layout
  "MVTec AD 2": (
    ("train/good/000_regular.png", "validation/good/000_regular.png"),
    ("test_public/good/000_regular.png", "test_public/bad/000_regular.png"),
    "test_public/ground_truth/bad/000_regular_mask.png",
    "mvtec_ad",
  ),
  "AutoVI": (
    ("train/good/0000.png", "train/good/0001.png"),
    ("test/good/0000.png", "test/missing_screw/0000.png"),
    "ground_truth/missing_screw/0000/0000.png",
    "loco",
  ),
  "VisA": (
    ("train/good/0000.JPG", "train/good/0001.JPG"),
    ("test/good/0000.JPG", "test/bad/000.JPG"),
    "ground_truth/bad/000.png",
    "mvtec_ad",
  ),
  "BTAD": (
    ("train/ok/0000.bmp", "train/ok/0001.bmp"),
    ("test/ok/0000.bmp", "test/ko/0000.bmp"),
    "ground_truth/ko/0000.png",
    "mvtec_ad",
  ),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_trees_of_other_data_sets_are_known(tmp_path, name):
  learned, tested, mask, layout = FORMS[name]
  base = tree(tmp_path / "nuts", *learned, *tested)
  save(base / mask)
  if layout == "loco":
    (base / "defects_config.json").write_text(json.dumps([AUTOVI]))
  assert folder.find_categories(tmp_path) == ("nuts",)
  data = folder.open_category(tmp_path, "nuts")
  assert data.layout == layout and len(data.train) + len(data.validation) == 2
  good, bad = sorted(data.test, key=lambda record: record.kind != "good")
  assert (good.kind, good.masks) == ("good", ())
  assert bad.kind == pathlib.PurePath(tested[1]).parent.name
  assert bad.masks == (base / mask,)
  rows = [(good, np.zeros(MASK.shape), 0.0), (bad, MASK / 255.0, 1.0)]
  result = category.measure(data, rows)
  assert result["image_auroc"]["pooled"] == 1
  region = result["au_spro"]["mean"] if layout == "loco" else result["au_pro"]
  assert set(region.values()) == {1.0} and region
  assert result["n_by_kind"] == {bad.kind: 1}
