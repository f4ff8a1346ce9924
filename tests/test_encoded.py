"""Paths, bytes and stored images are read and named alike (data/encoded.py)."""

import functools
import io
import pathlib
import re

import numpy as np
from PIL import Image
import pytest

from nps_jax.data import decoding
from nps_jax.data import encoded
from nps_jax.data import masks
from nps_jax.data import records

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
DEFECTS = (records.Defect("missing", 255, 4.0, False),)


def png(pixels):
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "PNG")
  return buffer.getvalue()


def lazily(content):
  return encoded.Stored("apple in BASKET", lambda: content)


def everywhere(folder, content):
  """The same bytes in each of the places, with the name that messages use."""
  path = folder / "apple.png"
  path.write_bytes(content)
  return ((path, str(path)), (content, "It"), (lazily(content), "apple in BASKET"))


def record(image, found=()):
  return records.Record("nuts/test/dent/0", "nuts", "test", "dent", image, found)


def test_the_same_bytes_come_from_everywhere(tmp_path):
  for image, name in everywhere(tmp_path, png(PIXELS)):
    with encoded.opened(image) as file:
      assert file.read() == png(PIXELS)
    assert encoded.name(image, "It") == name
    np.testing.assert_array_equal(decoding.decode(record(image)), PIXELS)
    assert decoding.original_size(record(image)) == (7, 5)


def test_masks_come_from_everywhere(tmp_path):
  mask = np.uint8(255 * (PIXELS[..., 0] > 99))
  for source, _ in everywhere(tmp_path, png(mask)):
    truth = masks.read(record(b"", (source,)), DEFECTS, (7, 5))
    np.testing.assert_array_equal(truth.mask((7, 5)), mask > 0)
    assert truth.names == ("missing",) and truth.saturation.tolist() == [4]


def test_messages_name_what_cannot_be_read(tmp_path):
  for content, reason in ((b"", "it is empty"), (b"words", "or none of BMP")):
    for image, name in everywhere(tmp_path, content):
      shown = name.replace("It", "The image of nuts/test/dent/0")
      with pytest.raises(ValueError, match=reason) as caught:
        decoding.decode(record(image))
      assert str(caught.value).startswith(f"{shown} cannot be read (")
  cases = (
    (b"words", r"cannot be read \(it is damaged at its beginning"),
    (png(np.zeros((7, 5), np.uint8)), "is empty"),
    (png(np.full((7, 5), 9, np.uint8)), "holds the value 9"),
    (png(np.ones((5, 7), np.uint8)), "is 5 x 7"),
  )
  for content, reason in cases:
    for source, name in everywhere(tmp_path, content):
      shown = name.replace("It", "Mask 0 of nuts/test/dent/0")
      with pytest.raises(ValueError, match=reason) as caught:
        masks.read(record(b"", (source,)), DEFECTS, (7, 5))
      assert re.match(f"{re.escape(shown)} {reason}", str(caught.value))


def fail(reason):
  raise ValueError(reason)


def test_a_store_says_why_it_fails():
  broken = encoded.Stored("apple in BASKET", functools.partial(fail, "it was eaten"))
  wanted = r"^apple in BASKET cannot be read \(.*: it was eaten\)"
  with pytest.raises(ValueError, match=wanted):
    decoding.decode(record(broken))
  with pytest.raises(ValueError, match=wanted):
    masks.read(record(b"", (broken,)), DEFECTS, (7, 5))


def test_stored_images_are_told_apart_by_name():
  assert lazily(b"a") == lazily(b"b") != encoded.Stored("pear", lambda: b"a")
  assert str(lazily(b"a")) == "apple in BASKET" and "lambda" not in repr(lazily(b"a"))
  assert pathlib.Path("apple in BASKET") != lazily(b"a")
