"""Ground truth: its form is recognised, and each mask finds its image."""

import pytest

from nps_jax.data import layouts
from nps_jax.data import records

LOGICAL = records.LOGICAL
MVTEC_AD = ("test/dirt/000.png", "ground_truth/dirt/000_mask.png")
LOCO = (f"test/{LOGICAL}/000.png", f"ground_truth/{LOGICAL}/000/000.png")


def tree(base, *names):
  """Empty files: layouts go by names alone."""
  for name in names:
    (base / name).parent.mkdir(parents=True, exist_ok=True)
    (base / name).touch()
  return base


def match(base, layout):
  kinds = {each.name: sorted(each.iterdir()) for each in (base / "test").iterdir()}
  return layouts.match(base, base / "test", layout, kinds, {})


@pytest.mark.parametrize(
  ("names", "wanted"),
  [
    (LOCO, "loco"),
    (("defects_config.json",), "loco"),
    (MVTEC_AD, "mvtec_ad"),
    ((*MVTEC_AD, "ground_truth/dirt/.hidden/0.png"), "mvtec_ad"),
    (("test/dirt/000.png",), "plain"),
    (("test/dirt/000.png", "ground_truth/good/000.png"), "plain"),
  ],
)
def test_the_layout_is_found_by_looking(tmp_path, names, wanted):
  assert layouts.find_layout(tree(tmp_path, *names)) == wanted


def test_an_empty_folder_does_not_make_a_layout(tmp_path):
  base = tree(tmp_path, *MVTEC_AD)
  (base / "ground_truth" / "dirt" / "001").mkdir()
  assert layouts.find_layout(base) == "mvtec_ad"


def test_an_unknown_form_is_an_error(tmp_path):
  base = tree(tmp_path, "test/ko/000.png", "ground_truth/ko/other.png")
  with pytest.raises(ValueError, match=r"no known layout; found .*ko/other\.png\. MV"):
    layouts.find_layout(base)


def test_masks_find_their_images(tmp_path):
  loco = tree(tmp_path / "a", *LOCO, f"ground_truth/{LOGICAL}/000/001.png")
  found = match(loco, "loco")
  folder = loco / "ground_truth" / LOGICAL / "000"
  assert found == {loco / LOCO[0]: (folder / "000.png", folder / "001.png")}
  mvtec_ad = tree(tmp_path / "b", *MVTEC_AD, "ground_truth/good/000_mask.png")
  found = match(mvtec_ad, "mvtec_ad")
  assert found == {mvtec_ad / MVTEC_AD[0]: (mvtec_ad / MVTEC_AD[1],)}


@pytest.mark.parametrize(("names", "layout"), [(LOCO, "loco"), (MVTEC_AD, "mvtec_ad")])
def test_images_without_masks_are_listed(tmp_path, names, layout):
  kind = names[0].split("/")[1]
  base = tree(tmp_path, *names, *(f"test/{kind}/{i}.png" for i in range(100, 112)))
  (base / "ground_truth" / kind / "100").mkdir()  # empty: still no mask
  wanted = rf"12 anomalous images have no mask in .*{kind}/109\.png and 2 more\. Add"
  with pytest.raises(ValueError, match=wanted):
    match(base, layout)


def test_masks_without_images_are_listed(tmp_path):
  lost = [
    f"ground_truth/{name}.png" for name in ("dirt/000", "dirt/001_mask", "x/0_mask")
  ]
  base = tree(tmp_path / "b", *MVTEC_AD, *lost)
  wanted = (
    r"3 masks in .* no image in .*: .*dirt/000\.png, .*dirt/001, .*x/0\. Expected"
  )
  with pytest.raises(ValueError, match=wanted):
    match(base, "mvtec_ad")
  lost = [f"ground_truth/{LOGICAL}/{name}.png" for name in ("007/000", "000_mask")]
  with pytest.raises(
    ValueError, match=r"2 masks in .*000_mask\.png, .*anomalies/007\."
  ):
    match(tree(tmp_path / "a", *LOCO, *lost), "loco")


def test_images_cannot_share_a_mask(tmp_path):
  with pytest.raises(ValueError, match="several images named 000, which would share"):
    match(tree(tmp_path, *MVTEC_AD, "test/dirt/000.jpg"), "mvtec_ad")
