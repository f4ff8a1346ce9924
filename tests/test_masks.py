"""Ground truth files to channels, and every way they can be wrong."""

import json
import pathlib
import tracemalloc

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import pytest

from nps_jax.data import decoding
from nps_jax.data import levels
from nps_jax.data import masks
from nps_jax.data import records

DEFECTS = (
  records.Defect("missing", 255, 30.0, False),
  records.Defect("half", 254, 0.5, True),
  records.Defect("all", 253, 1.0, True),
)
SIZE = (12, 10)


def record(*paths, kind=records.LOGICAL):
  name = f"cat/test/{kind}/000"
  return records.Record(name, "cat", "test", kind, pathlib.Path("x.png"), paths)


def shown(truth):
  """Each channel as a mask."""
  return [truth._replace(channels=(pixels,)).mask(SIZE) for pixels in truth.channels]


def save(path, rows, columns, value):
  mask = np.zeros(SIZE, np.uint8)
  mask[rows, columns] = value
  Image.fromarray(mask).save(path)
  return path


def test_loco_files_are_channels_with_their_own_saturation(tmp_path):
  paths = (
    save(tmp_path / "0.png", slice(0, 3), slice(0, 3), 254),  # half of 9: floor 4
    save(tmp_path / "1.png", slice(0, 12), slice(0, 10), 255),  # 30 of 120
    save(tmp_path / "2.png", slice(5, 7), slice(5, 7), 255),  # only 4 there
    save(tmp_path / "3.png", slice(0, 3), slice(8, 9), 253),
    save(tmp_path / "4.png", slice(0, 1), slice(0, 1), 254),  # floor 0, at least 1
  )
  truth = masks.read(record(*paths), DEFECTS, SIZE)
  assert truth.names == ("half", "missing", "missing", "all", "half")
  assert truth.saturation.tolist() == [4, 30, 4, 3, 1]
  for channel, path in zip(shown(truth), paths, strict=True):
    np.testing.assert_array_equal(channel, np.asarray(Image.open(path)) > 0)


def test_a_loco_channel_is_not_split_into_regions(tmp_path):
  path = save(tmp_path / "0.png", [1, 9], [1, 8], 253)
  truth = masks.read(record(path), DEFECTS, SIZE)
  assert [len(channel) for channel in truth.channels] == [2]


def test_without_defects_regions_are_channels(tmp_path):
  # Two pixels that touch at a corner are one region; the third is far away.
  path = save(tmp_path / "0.png", [1, 2, 8], [1, 2, 8], 200)
  truth = masks.read(record(path, kind="scratch"), (), SIZE)
  assert truth.names == ("scratch", "scratch")
  assert truth.saturation.tolist() == [2, 1]
  assert [np.argwhere(c).tolist() for c in shown(truth)] == [
    [[1, 1], [2, 2]],
    [[8, 8]],
  ]


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6))
def test_regions_do_not_depend_on_how_files_share_them(tmp_path_factory, seed):
  folder, rng = tmp_path_factory.mktemp("masks"), np.random.default_rng(seed)
  mask = rng.random(SIZE) < 0.2
  mask[0, 0] = mask[-1, -1] = True
  first = rng.random(SIZE) < 0.5
  first[0, 0], first[-1, -1] = True, False
  whole = save(folder / "whole.png", *np.nonzero(mask), 255)
  parts = (
    save(folder / "a.png", *np.nonzero(mask & first), 255),
    save(folder / "b.png", *np.nonzero(mask & ~first), 7),
  )
  want = masks.read(record(whole, kind="dent"), (), SIZE)
  got = masks.read(record(*parts, kind="dent"), (), SIZE)
  assert [c.tolist() for c in got.channels] == [c.tolist() for c in want.channels]
  assert want.saturation.sum() == mask.sum()


def test_a_good_image_has_no_channels():
  truth = masks.read(record(kind=records.GOOD), DEFECTS, SIZE)
  assert truth.channels == () and not truth.mask(SIZE).any()
  assert truth.saturation.shape == (0,)
  assert truth.names == ()


def test_bilevel_and_16_bit_masks_are_read(tmp_path):
  mask = np.zeros(SIZE, bool)
  mask[2:4, 2:4] = True
  Image.fromarray(mask).save(tmp_path / "1.png")
  Image.fromarray(mask.astype(np.uint16) * 65535).save(tmp_path / "16.png")
  for name in ("1.png", "16.png"):
    truth = masks.read(record(tmp_path / name, kind="dent"), (), SIZE)
    np.testing.assert_array_equal(shown(truth), mask[None])


def test_unusable_masks_are_refused(tmp_path):
  good = save(tmp_path / "good.png", 1, 1, 255)
  with pytest.raises(ValueError, match=r"good\.png is 12 x 10 .* but its image is"):
    masks.read(record(good), DEFECTS, (10, 12))
  unknown = save(tmp_path / "unknown.png", 1, 1, 9)
  with pytest.raises(
    ValueError, match=r"unknown\.png holds the value 9, .* \[253, 254"
  ):
    masks.read(record(unknown), DEFECTS, SIZE)
  several = save(tmp_path / "several.png", [1, 2], [1, 1], [255, 254])
  with pytest.raises(ValueError, match=r"several\.png holds the values \[254, 255\]"):
    masks.read(record(good, several), DEFECTS, SIZE)
  empty = save(tmp_path / "empty.png", 1, 1, 0)
  for defects in (DEFECTS, ()):
    with pytest.raises(ValueError, match=r"empty\.png is empty"):
      masks.read(record(empty), defects, SIZE)
  colour = tmp_path / "colour.png"
  Image.fromarray(np.uint8([[[255, 0, 0], [0, 0, 255]] * 5] * 12)).save(colour)
  with pytest.raises(ValueError, match=r"colour\.png has 2 colours; a mask is grey"):
    masks.read(record(colour), DEFECTS, SIZE)
  cut = tmp_path / "cut.png"
  cut.write_bytes(good.read_bytes()[:45])
  text = tmp_path / "text.png"
  text.write_text("no image")
  for path in (cut, text, tmp_path / "absent.png"):
    with pytest.raises(ValueError, match=rf"{path.name} cannot be read \("):
      masks.read(record(path), DEFECTS, SIZE)
  with pytest.raises(ValueError, match="000 is anomalous but has no ground-truth mask"):
    masks.read(record(), DEFECTS, SIZE)
  masks.check(good, str(good), DEFECTS, SIZE)
  for path, defects, size, message in (
    (good, DEFECTS, (10, 12), "but its image is 10 x 12; a mask must"),
    (unknown, DEFECTS, SIZE, "holds the value 9"),
    (several, DEFECTS, SIZE, "holds the values"),
    (empty, (), SIZE, "is empty"),
    (colour, (), SIZE, "has 2 colours"),
    (cut, (), SIZE, "cannot be read"),
  ):
    with pytest.raises(ValueError, match=rf"{path.name} .*{message}"):
      masks.check(path, str(path), defects, size)
  for path in (unknown, several):  # without defects any value will do
    masks.check(path, str(path), (), SIZE)


DENT = np.zeros(SIZE, bool)
DENT[2:6, 3:8] = True


def encodings():
  """Files that all say DENT, by name: what saves one under a path."""
  grey = np.uint8(255) * DENT
  palette = Image.fromarray(np.uint8(~DENT))  # its entry 0 is white
  palette.putpalette([255, 255, 255, 0, 0, 0])
  red = np.zeros((*SIZE, 3), np.uint8)
  red[DENT] = [200, 0, 0]
  opaque = np.dstack([grey] * 3 + [np.full(SIZE, 255, np.uint8)])
  return {
    "grey.png": Image.fromarray(grey),
    "one.png": Image.fromarray(np.uint8(DENT)),
    "bit.png": Image.fromarray(DENT),
    "sixteen.png": Image.fromarray(np.uint16(DENT) * 4095),
    "background_one.png": Image.fromarray(np.where(DENT, 255, 1).astype(np.uint8)),
    "one_and_two.png": Image.fromarray(np.uint8(DENT) + np.uint8(1)),
    "noise.jpg": Image.fromarray(grey),
    "palette.png": palette,
    "rgb.png": Image.fromarray(np.dstack([grey] * 3)),
    "red.png": Image.fromarray(red),
    "opaque.png": Image.fromarray(opaque),
  }


@pytest.mark.parametrize("name", encodings())
def test_the_same_mask_in_any_encoding_says_the_same(tmp_path, name):
  path = tmp_path / name
  encodings()[name].save(path)
  truth = masks.read(record(path, kind="dent"), (), SIZE)
  if name.endswith(".jpg"):  # which blurs an edge by a pixel
    assert len(truth.channels) == 1
    assert np.count_nonzero(truth.mask(SIZE) != DENT) <= 2
  else:
    np.testing.assert_array_equal(truth.mask(SIZE), DENT)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_is_turned_by_its_tag_as_its_image_is(tmp_path, orientation):
  exif = Image.Exif()
  exif[274] = orientation
  pixels = np.dstack([np.uint8(255) * DENT] * 3)
  for name in ("image.png", "mask.png"):
    Image.fromarray(pixels).save(tmp_path / name, exif=exif)
  one = record(tmp_path / "mask.png", kind="dent")._replace(
    image=tmp_path / "image.png"
  )
  seen = decoding.decode(one)[..., 0] > 0
  assert seen.shape == decoding.original_size(one)
  truth = masks.read(one, (), seen.shape)
  np.testing.assert_array_equal(truth.mask(seen.shape), seen)


def test_ambiguous_masks_are_named(tmp_path):
  ramp = Image.fromarray(np.tile(np.linspace(0, 255, 10).astype(np.uint8), (12, 1)))
  clear = Image.fromarray(np.uint8(np.dstack([255 * DENT] * 4)))
  for name, image, message in (
    ("ramp.png", ramp, "has many grey values between 0 and 255; a mask has two levels"),
    ("clear.png", clear, "is transparent in places; save the mask without that"),
  ):
    image.save(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} {message}"):
      masks.read(record(tmp_path / name, kind="dent"), (), SIZE)


def test_masks_of_most_of_their_image_are_told_and_inverted_ones_refused(caplog):
  assert levels.looks_inverted(~DENT) and not levels.looks_inverted(DENT)
  framed = np.pad(np.ones((10, 8), bool), 1)
  assert levels.is_wide(framed) and not levels.looks_inverted(framed)
  masks.tell_wide([], [], 4)
  assert not caplog.text
  masks.tell_wide(["a", "b"], ["b"], 4)
  assert "2 of 4 masks mark more than half of their image: a, b." in caplog.text
  with pytest.raises(
    ValueError, match=r"3 of 4 masks mark most .* and look inverted: a"
  ):
    masks.tell_wide(["a", "b", "c"], ["a", "b", "c"], 4)


def test_thousands_of_specks_cost_what_they_cover():
  specks = np.zeros((1000, 1000), bool)
  specks[::14, ::14] = True
  tracemalloc.start()
  channels = masks._regions(specks)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert len(channels) == 72 * 72 and {len(channel) for channel in channels} == {1}
  assert [int(channel[0]) for channel in channels] == np.flatnonzero(specks).tolist()
  assert peak < 50e6  # as full-size masks they would take 5e9


def entry(**changes):
  return {
    "defect_name": "a",
    "pixel_value": 255,
    "saturation_threshold": 6300,
    "relative_saturation": False,
  } | changes


def test_defects_are_read_in_order(tmp_path):
  path = tmp_path / "defects_config.json"
  second = entry(pixel_value=1, saturation_threshold=0.7, relative_saturation=True)
  path.write_text(json.dumps([entry(extra="kept out"), second]))
  assert masks.read_defects(path) == (
    records.Defect("a", 255, 6300.0, False),
    records.Defect("a", 1, 0.7, True),
  )


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("{", "is not valid JSON"),
    ("{}", "must hold a list of defects"),
    ("[]", "must hold a list of defects"),
    ("[3]", "entry 0 lacks keys"),
    ([{"defect_name": "a"}], "entry 0 lacks keys: .*'pixel_value'"),
    ([entry(), entry()], r"gives pixel_value \[255\] to more than one defect"),
    ([entry(defect_name="")], "defect_name is ''"),
    ([entry(pixel_value=0)], "pixel_value is 0; expected 1 to 255"),
    ([entry(pixel_value=256)], "pixel_value is 256"),
    ([entry(pixel_value=True)], "pixel_value is True"),
    ([entry(), entry(pixel_value="3")], "entry 1: pixel_value is '3'"),
    ([entry(relative_saturation=1)], "relative_saturation is 1; expected a bool"),
    ([entry(saturation_threshold=0)], "saturation_threshold is 0; .* above 0"),
    ([entry(saturation_threshold="1")], "saturation_threshold is '1'"),
    ([entry(saturation_threshold=float("nan"))], "saturation_threshold is nan"),
    ([entry(saturation_threshold=0.5)], "is 0.5; an absolute one counts pixels"),
    (
      [entry(saturation_threshold=1.5, relative_saturation=True)],
      "is 1.5; a relative one is at most 1",
    ),
  ],
)
def test_bad_defects_are_refused(tmp_path, content, message):
  path = tmp_path / "defects_config.json"
  path.write_text(content if isinstance(content, str) else json.dumps(content))
  with pytest.raises(ValueError, match=rf"defects_config\.json.*{message}"):
    masks.read_defects(path)


def test_a_missing_defects_file_is_named(tmp_path):
  with pytest.raises(
    ValueError, match=r"absent\.json cannot be read .*one defects_con"
  ):
    masks.read_defects(tmp_path / "absent.json")
