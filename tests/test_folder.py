"""Folder trees to records: every layout, every way a tree can be wrong."""

import json
import logging
import pathlib

from absl import logging as absl_logging
import ml_collections
from PIL import Image
import pytest

from nps_jax.data import folder
from nps_jax.data import records
from nps_jax.data import unlabelled

DEFECTS = [
  {
    "defect_name": "missing",
    "pixel_value": 255,
    "saturation_threshold": 10,
    "relative_saturation": False,
  }
]


def save(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", (4, 3)).save(path)
  return path


def good(base, train=12, validation=0, test=0):
  for split, count in (("train", train), ("validation", validation), ("test", test)):
    for i in range(count):
      save(base / split / "good" / f"{i:03}.png")
  return base


def loco(base):
  good(base, 3, 2, 2)
  for kind, ids in ((records.LOGICAL, ("000", "001")), (records.STRUCTURAL, ("000",))):
    for name in ids:
      save(base / "test" / kind / f"{name}.png")
      for k in range(2 if name == "000" else 1):
        save(base / "ground_truth" / kind / name / f"{k:03}.png")
  (base / "defects_config.json").write_text(json.dumps(DEFECTS))
  return base


def mvtec_ad(base):
  good(base, 12, 0, 2)
  for kind, name in (("broken", "000"), ("broken", "001"), ("dirt", "000")):
    save(base / "test" / kind / f"{name}.png")
    save(base / "ground_truth" / kind / f"{name}_mask.png")
  return base


def ids(found):
  return [each.id for each in found]


def test_a_loco_tree_gives_every_channel(tmp_path):
  base = loco(tmp_path / "juice")
  found = folder.open_category(tmp_path, "juice")
  assert (found.category, found.layout) == ("juice", "loco")
  assert ids(found.train) == [f"juice/train/good/{i:03}" for i in range(3)]
  assert ids(found.validation) == [f"juice/validation/good/{i:03}" for i in range(2)]
  kinds = [records.GOOD] * 2 + [records.LOGICAL] * 2 + [records.STRUCTURAL]
  assert [each.kind for each in found.test] == kinds
  assert [len(each.masks) for each in found.test] == [0, 0, 2, 1, 2]
  truth = base / "ground_truth" / records.LOGICAL / "000"
  assert found.test[2] == records.Record(
    *(f"juice/test/{records.LOGICAL}/000", "juice", "test", records.LOGICAL),
    *(base / "test" / records.LOGICAL / "000.png",),
    masks=(truth / "000.png", truth / "001.png"),
  )
  assert found.defects == (records.Defect("missing", 255, 10.0, False),)


def test_a_loco_tree_may_lack_test_images(tmp_path):
  good(tmp_path / "juice", 3, 2)
  for layout in ("loco", "auto"):
    found = folder.open_category(tmp_path, "juice", layout=layout)
    assert (len(found.train), found.test, found.defects) == (3, (), ())
    if layout == "loco":
      (tmp_path / "juice" / "defects_config.json").write_text(json.dumps(DEFECTS))
      found = folder.open_category(tmp_path, "juice", layout=layout)
      assert len(found.defects) == 1
      (tmp_path / "juice" / "defects_config.json").unlink()


def test_a_loco_tree_needs_its_defects(tmp_path):
  (loco(tmp_path / "juice") / "defects_config.json").unlink()
  with pytest.raises(ValueError, match=r"defects_config\.json cannot be read"):
    folder.open_category(tmp_path, "juice")


def test_a_loco_tree_has_two_anomalous_kinds(tmp_path):
  save(loco(tmp_path / "juice") / "test" / "odd" / "000.png")
  with pytest.raises(
    ValueError, match=r"test holds odd; the LOCO layout has good, log"
  ):
    folder.open_category(tmp_path, "juice")


def test_an_mvtec_ad_tree_gives_one_mask_each(tmp_path):
  base = mvtec_ad(tmp_path / "bottle")
  save(base / "ground_truth" / "good" / "000_mask.png")  # seen in the wild: not needed
  found = folder.open_category(tmp_path, "bottle")
  assert (found.layout, found.defects) == ("mvtec_ad", ())
  assert [each.kind for each in found.test] == [
    "broken",
    "broken",
    "dirt",
    "good",
    "good",
  ]
  masks = [each.masks for each in found.test]
  truth = base / "ground_truth"
  assert masks[:2] == [(truth / "broken" / f"00{i}_mask.png",) for i in range(2)]
  assert masks[2:] == [(truth / "dirt" / "000_mask.png",), (), ()]


@pytest.mark.parametrize("inner", ["", "good"])
def test_a_plain_tree_needs_no_masks(tmp_path, inner):
  for split, count in (("train", 3), ("validation", 2)):
    for i in range(count):
      save(tmp_path / "nuts" / split / inner / f"{i}.jpg")
  save(tmp_path / "nuts" / "test" / "good" / "0.png")
  save(tmp_path / "nuts" / "test" / "dent" / "0.png")
  found = folder.open_category(tmp_path, "nuts")
  assert found.layout == "plain"
  assert ids(found.train) == [f"nuts/train/good/{i}" for i in range(3)]
  assert len(found.validation) == 2
  assert [(each.kind, each.masks) for each in found.test] == [
    ("dent", ()),
    ("good", ()),
  ]


def test_a_layout_can_be_forced(tmp_path):
  mvtec_ad(tmp_path / "bottle")
  found = folder.open_category(tmp_path, "bottle", layout="plain")
  assert found.layout == "plain" and not any(each.masks for each in found.test)
  with pytest.raises(
    ValueError, match=r"layout is 'lcoo'; expected one of \('auto', 'l"
  ):
    folder.open_category(tmp_path, "bottle", layout="lcoo")
  with pytest.raises(
    ValueError, match=r"3 anomalous images have no mask in .*<number>"
  ):
    folder.open_category(tmp_path, "bottle", layout="loco")


def test_unknown_ground_truth_is_not_dropped_in_silence(tmp_path):
  base = good(tmp_path / "tile", 3, 0, 1)
  save(base / "test" / "ko" / "000.png")
  save(base / "ground_truth" / "ko" / "other.png")
  with pytest.raises(ValueError, match=r"no known layout; found .*ko/other\.p.*plain"):
    folder.open_category(tmp_path, "tile")
  assert len(folder.open_category(tmp_path, "tile", layout="plain").test) == 2


def test_a_tenth_of_the_training_images_is_held_out(tmp_path, caplog):
  good(tmp_path / "nuts", 110)
  absl_logging.set_verbosity(absl_logging.INFO)
  with caplog.at_level(logging.INFO, logger="absl"):
    found = folder.open_category(tmp_path, "nuts", seed=3)
  assert "11 of its 110 training images" in caplog.text
  assert (len(found.train), len(found.validation)) == (99, 11)
  files = [each.image.name for each in (*found.train, *found.validation)]
  assert sorted(files) == [f"{i:03}.png" for i in range(110)]
  assert files[:99] == sorted(files[:99])
  for each in found.validation:
    assert each.split == "validation"
    assert each.id == f"nuts/validation/good/{each.image.stem}"
  assert folder.open_category(tmp_path, "nuts", seed=3) == found
  others = [folder.open_category(tmp_path, "nuts", seed=s) for s in range(4, 8)]
  assert any(each.validation != found.validation for each in others)


@pytest.mark.parametrize(
  ("count", "fraction", "held"),
  [
    (2, 0.1, 1),
    (2, 0.99, 1),
    (5, 0.99, 4),
    (5, 0.4, 2),
    (12, 0.1, 4),
    (31, 0.1, 6),
    (40, 0.3, 12),
  ],
)
def test_some_images_are_held_out_but_never_all(tmp_path, count, fraction, held):
  good(tmp_path / "nuts", count)
  found = folder.open_category(tmp_path, "nuts", validation_fraction=fraction)
  assert (len(found.train), len(found.validation)) == (count - held, held)


def test_what_cannot_be_held_out_is_refused(tmp_path):
  good(tmp_path / "nuts", 1)
  with pytest.raises(ValueError, match="single training image and no validation"):
    folder.open_category(tmp_path, "nuts")
  with pytest.raises(ValueError, match=r"validation_fraction is 1\.0; expected"):
    folder.open_category(tmp_path, "nuts", validation_fraction=1.0)


def test_categories_are_found_and_resolved(tmp_path):
  for name in ("b", "a", "c"):
    good(tmp_path / name, 2)
  (tmp_path / "notes").mkdir()
  (tmp_path / ".cache" / "train").mkdir(parents=True)
  assert folder.find_categories(tmp_path) == ("a", "b", "c")
  assert folder.resolve(tmp_path, "all") == ("a", "b", "c")
  assert folder.resolve(tmp_path, "c, a,c") == ("c", "a")
  assert folder.resolve(tmp_path, "b") == ("b",)
  with pytest.raises(ValueError, match="'all' means a, b, c; expected one category"):
    folder.open_category(tmp_path, "all")


def test_a_root_can_be_the_category(tmp_path, monkeypatch):
  base = mvtec_ad(tmp_path / "bottle")
  assert folder.find_categories(base) == ("bottle",)
  monkeypatch.chdir(base)
  for root in (base, pathlib.Path(".")):
    for name in ("all", "bottle"):
      found = folder.open_category(root, name)
      assert (found.category, len(found.test)) == ("bottle", 5)
  with pytest.raises(ValueError, match=r"category is 'cup'; .* has bottle"):
    folder.resolve(base, "cup")


def test_a_name_with_a_comma_is_one_name(tmp_path):
  good(tmp_path / "a,b", 2)
  assert folder.resolve(tmp_path, "a,b") == ("a,b",)


def test_unknown_categories_are_answered_with_the_known(tmp_path):
  for name in ("pushpins", "screw_bag"):
    good(tmp_path / name, 2)
  wanted = r"'pushpin'; .* has pushpins, screw_bag\. Did you mean 'pushpins'\?"
  with pytest.raises(ValueError, match=wanted):
    folder.resolve(tmp_path, "pushpin")
  with pytest.raises(ValueError, match=r"has pushpins, screw_bag\. Name some of these"):
    folder.resolve(tmp_path, "zzz")
  with pytest.raises(ValueError, match="category is ''"):
    folder.resolve(tmp_path, "")


def test_wrong_roots(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"x/y does not exist; .* holds nothing"):
    folder.find_categories(tmp_path / "x" / "y")
  file = save(tmp_path / "data.png")
  with pytest.raises(ValueError, match=r"data\.png is a file.*unpack"):
    folder.find_categories(file)
  with pytest.raises(FileNotFoundError, match=r"no category; .*found data\.png\."):
    folder.find_categories(tmp_path)


def test_training_images_must_be_there(tmp_path):
  base = tmp_path / "nuts"
  save(base / "test" / "good" / "0.png")
  with pytest.raises(FileNotFoundError, match=r"no folder train; found test/\. Put"):
    folder.open_category(tmp_path, "nuts")
  (base / "train" / "other").mkdir(parents=True)
  with pytest.raises(ValueError, match=r"train holds no images; found other/\."):
    folder.open_category(tmp_path, "nuts")
  (base / "train" / "good").mkdir()
  (base / "train" / "good" / ".hidden.png").touch()
  with pytest.raises(ValueError, match=r"train/good holds no images; found nothing"):
    folder.open_category(tmp_path, "nuts")
  (base / "train" / "good" / "0.gif").touch()
  wanted = r"train/good holds no images: found \.gif, expected \.bmp, .*\.webp"
  with pytest.raises(ValueError, match=wanted):
    folder.open_category(tmp_path, "nuts")
  good(base, 2)
  assert len(folder.open_category(tmp_path, "nuts").train) == 1  # the .gif is ignored
  (base / "validation").mkdir()
  with pytest.raises(
    ValueError, match=r"validation holds no images; .*remove the fold"
  ):
    folder.open_category(tmp_path, "nuts")
  save(base / "train" / "9.png")
  with pytest.raises(ValueError, match="train holds images both directly and in good/"):
    folder.open_category(tmp_path, "nuts")


def test_test_images_need_a_kind(tmp_path):
  save(good(tmp_path / "nuts") / "test" / "0.png")
  with pytest.raises(ValueError, match=r"outside of a kind's folder: .*test/0\.png"):
    folder.open_category(tmp_path, "nuts")


def test_equal_stems_keep_their_suffix(tmp_path):
  save(good(tmp_path / "nuts", 2, 1) / "train" / "good" / "000.jpg")
  found = folder.open_category(tmp_path, "nuts").train
  assert [each.id.rsplit("/", 1)[1] for each in found] == ["000.jpg", "000.png", "001"]


def settings(root, **changed):
  base = {"category": "all", "layout": "auto", "validation_fraction": 0.5}
  return ml_collections.ConfigDict({"root": str(root), **base, **changed})


def test_open_all_follows_the_config(tmp_path):
  for name in ("a", "b"):
    good(tmp_path / name, 4)
  found = folder.open_all(settings(tmp_path, category="b,a"), 0)
  assert [each.category for each in found] == ["b", "a"]
  assert [len(each.validation) for each in found] == [2, 2]
  assert len(folder.open_all(settings(tmp_path), 0)) == 2
  with pytest.raises(ValueError, match=r"config\.data\.root is empty"):
    folder.open_all(settings(""), 0)


def test_images_for_prediction(tmp_path):
  first = save(tmp_path / "in" / "a.png")
  second = save(tmp_path / "in" / "deep" / "a.png")
  (tmp_path / "in" / "notes.txt").touch()
  found = unlabelled.images([str(tmp_path / "in"), str(first)])
  assert found == (
    records.Record("a", "", "test", "", first),
    records.Record("deep/a", "", "test", "", second),
  )
  assert unlabelled.images([str(second)]) == (
    records.Record("a", "", "test", "", second),
  )


def test_ids_for_prediction_are_unique(tmp_path):
  places = [tmp_path / "x" / "day", tmp_path / "y" / "day", tmp_path / "y" / "night"]
  for place in places:
    save(place / "a.png")
    save(place / "b.png")
  save(places[2] / "b.jpg")
  save(places[2] / "c.png")
  found = ids(unlabelled.images([str(place) for place in places]))
  assert found[6] == "c" or found[-1] == "c"
  base = tmp_path.as_posix().lstrip("/")
  assert set(found) == {
    *(f"{base}/{each}/day/{name}.png" for each in "xy" for name in "ab"),
    *("night/a.png", "night/b.png", "b.jpg", "c"),
  }


def test_nothing_to_predict(tmp_path):
  with pytest.raises(FileNotFoundError, match="lost does not exist"):
    unlabelled.images([str(tmp_path / "lost")])
  with pytest.raises(ValueError, match="gives no image: found nothing"):
    unlabelled.images([str(tmp_path)])
  (tmp_path / "a.txt").touch()
  with pytest.raises(ValueError, match=r"found \.txt, expected \.bmp"):
    unlabelled.images([str(tmp_path / "a.txt")])
  with pytest.raises(ValueError, match="No images were named"):
    unlabelled.images([])
