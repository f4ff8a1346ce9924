"""Image files to pixels: sizes, modes, EXIF, and damaged files (data/decoding.py)."""

import io
import os
import pathlib

import numpy as np
from PIL import Image
import pytest

from nps_jax.data import decoding
from nps_jax.data import depth
from nps_jax.data import records

SIDEWAYS = (5, 6, 7, 8)


def record(image, name="nuts/train/good/0"):
  return records.Record(name, "nuts", "train", "good", image)


def encoded(image, form="PNG", **options):
  buffer = io.BytesIO()
  image.save(buffer, form, **options)
  return buffer.getvalue()


def noise(height, width, channels=3, seed=0):
  shape = (height, width, channels) if channels else (height, width)
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def triangle(length, size):
  """PIL's antialiased bilinear weights, in float64: rows of a (size, length) matrix."""
  scale = length / size
  reach = max(scale, 1.0)
  centre = (np.arange(size) + 0.5) * scale
  away = np.abs(np.arange(length) + 0.5 - centre[:, None]) / reach
  weights = np.maximum(1 - away, 0)
  return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("shape", [(37, 50), (9, 11), (16, 64)])
def test_resizing_is_antialiased_bilinear(tmp_path, shape):
  pixels = noise(*shape)
  Image.fromarray(pixels).save(tmp_path / "a.png")
  found = decoding.decode(record(tmp_path / "a.png"), (16, 16))
  rows, columns = triangle(shape[0], 16), triangle(shape[1], 16)
  wanted = np.einsum("yh,xw,hwc->yxc", rows, columns, pixels.astype(np.float64))
  assert found.dtype == np.uint8
  assert np.abs(found - wanted).max() <= 1.01  # PIL rounds after each direction


def test_without_a_size_the_pixels_stay(tmp_path):
  pixels = noise(6, 9)
  Image.fromarray(pixels).save(tmp_path / "a.png")
  np.testing.assert_array_equal(decoding.decode(record(tmp_path / "a.png")), pixels)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_of_16_bit_files_is_scaled_by_its_bits(tmp_path, bits):
  full = 2**bits - 1
  values = np.uint16([[0, 1, full // 2, full // 3], [full - 1, full, 7, full // 5]])
  path = tmp_path / "deep.png"
  Image.fromarray(values).save(path)
  deep = records.Record("a", "", "", "", path, bits=bits)
  want = np.floor(values.astype(np.float64) / full * 255 + 0.5)
  np.testing.assert_array_equal(decoding.decode(deep)[..., 0], want)
  assert decoding.highest(deep) == full
  if bits > 8:
    with pytest.raises(ValueError, match=rf"value is {full}, above the {full // 4} of"):
      decoding.decode(deep._replace(bits=bits - 2))


def test_a_data_set_s_bits_are_those_of_its_normal_images(tmp_path, caplog):
  images = []
  for at, high in enumerate((900, 3000)):
    path = tmp_path / f"{at}.png"
    Image.fromarray(np.uint16([[0, high]])).save(path)
    images.append(records.Record(f"{at}", "", "train", "good", path))
  Image.new("L", (4, 4)).save(tmp_path / "8.png")
  (tmp_path / "bad.png").write_bytes(b"no image")
  shallow = [
    records.Record(name, "", "train", "good", tmp_path / name)
    for name in ("8.png", "bad.png")
  ]
  assert depth.find(images[:1]) == 10 and depth.find(images) == 12
  assert depth.find(shallow) == 16 and not any(map(decoding.highest, shallow[:1]))
  with caplog.at_level("INFO"):
    assert depth.find(images + shallow) == 12
  assert "2 of 4 normal images are 16-bit files, whose highest grey" in caplog.text
  assert "value is 3000: read as 12 bits" in caplog.text
  data = records.Dataset("a", "plain", tuple(images), tuple(images), tuple(shallow))
  bits = {each.bits for split in depth.using(data, 12)[2:5] for each in split}
  assert bits == {12}


def test_every_mode_becomes_rgb():
  grey, alpha, rgb = noise(6, 9, 0), noise(6, 9, 0, seed=1), noise(6, 9)
  threefold = np.repeat(grey[..., None], 3, axis=-1)
  palette = Image.fromarray(rgb).quantize(17)
  table = np.uint8(palette.getpalette()).reshape(-1, 3)
  cmyk = noise(6, 9, 4)
  ink = cmyk.astype(np.float64)
  mixed = (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
  cases = (
    (encoded(Image.fromarray(grey)), threefold),
    (
      encoded(Image.merge("LA", [Image.fromarray(each) for each in (grey, alpha)])),
      threefold,
    ),
    (encoded(Image.fromarray(np.dstack([rgb, alpha]))), rgb),  # not blended
    (encoded(palette), table[np.asarray(palette)]),
    (encoded(palette, transparency=bytes(range(17))), table[np.asarray(palette)]),
    (encoded(Image.fromarray(rgb), transparency=(1, 2, 3)), rgb),
    (encoded(Image.fromarray(grey > 99)), np.where(threefold > 99, 255, 0)),
    (
      encoded(
        Image.merge("CMYK", list(map(Image.fromarray, np.moveaxis(cmyk, -1, 0)))),
        "TIFF",
      ),
      mixed,
    ),
    (encoded(Image.fromarray(rgb), "BMP"), rgb),
    (encoded(Image.fromarray(rgb), "WEBP", lossless=True), rgb),
  )
  for content, wanted in cases:
    found = decoding.decode(record(content))
    assert found.shape == (6, 9, 3) and found.dtype == np.uint8
    assert np.abs(found - np.float64(wanted)).max() <= 1 * (wanted is mixed)


@pytest.mark.parametrize(
  ("dtype", "form"), [("<u2", "PNG"), ("<u2", "TIFF"), (">u2", "TIFF"), ("i4", "TIFF")]
)
def test_16_bits_scale_to_8(dtype, form):
  values = np.array([[0, 128, 129, 257], [32767, 32768, 65406, 65535]])
  content = encoded(Image.fromarray(values.astype(dtype)), form)
  found = decoding.decode(record(content))
  wanted = np.round(values / 65535 * 255)
  np.testing.assert_array_equal(wanted, [[0, 0, 1, 1], [127, 128, 254, 255]])
  np.testing.assert_array_equal(found, np.repeat(wanted[..., None], 3, axis=-1))


def test_pixels_that_cannot_become_8_bits_are_refused():
  deep = encoded(Image.fromarray(np.full((2, 2), 70000, np.int32)), "TIFF")
  with pytest.raises(
    ValueError, match=r"image of nuts.*\(it has grey values outside of"
  ):
    decoding.decode(record(deep))
  real = encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF")
  for read in (decoding.decode, decoding.original_size):
    with pytest.raises(ValueError, match="its pixels are floating-point numbers; save"):
      read(record(real))


def upright(pixels, orientation):
  """What the EXIF standard says of where row 0 and column 0 lie, by hand."""
  turned = pixels.swapaxes(0, 1) if orientation in SIDEWAYS else pixels
  vertical = {3: -1, 4: -1, 7: -1, 8: -1}.get(orientation, 1)
  horizontal = {2: -1, 3: -1, 6: -1, 7: -1}.get(orientation, 1)
  return turned[::vertical, ::horizontal]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image(form, orientation):
  pixels = noise(6, 9)
  exif = Image.Exif()
  exif[0x0112] = orientation
  options = {"lossless": True} if form == "WEBP" else {}
  content = encoded(Image.fromarray(pixels), form, exif=exif, **options)
  wanted = upright(pixels, orientation)
  np.testing.assert_array_equal(decoding.decode(record(content)), wanted)
  assert decoding.original_size(record(content)) == wanted.shape[:2]


def test_exif_turns_a_jpeg():
  exif = Image.Exif()
  exif[0x0112] = 6
  pixels = np.zeros((16, 32, 3), np.uint8)
  pixels[:, 16:] = 255  # right half white: the camera was turned, so it is below
  content = encoded(Image.fromarray(pixels), "JPEG", exif=exif, quality=95)
  found = decoding.decode(record(content))
  assert decoding.original_size(record(content)) == found.shape[:2] == (32, 16)
  assert found[:15].max() < 20 and found[17:].min() > 235


def test_the_size_comes_from_the_header():
  for form in ("PNG", "JPEG", "BMP"):
    content = encoded(Image.fromarray(noise(60, 90)), form)
    assert decoding.original_size(record(content[:700])) == (60, 90)


def test_unreadable_images_are_named_with_the_reason(tmp_path, monkeypatch):
  whole = encoded(Image.fromarray(noise(60, 90)))
  cases = {
    "empty.png": (b"", "it is empty"),
    "text.png": (
      b"not an image at all",
      "damaged at its beginning, or none of BMP, JPEG",
    ),
    "cut.png": (whole[: len(whole) // 2], "truncated"),
    "cut.jpg": (encoded(Image.fromarray(noise(60, 90)), "JPEG")[:2000], "truncated"),
  }
  for name, (content, reason) in cases.items():
    path = tmp_path / name
    path.write_bytes(content)
    for image, shown in (
      (path, str(path)),
      (content, "The image of nuts/train/good/0"),
    ):
      with pytest.raises(ValueError, match="Replace or remove it") as caught:
        decoding.decode(record(image), (8, 8))
      assert str(caught.value).startswith(f"{shown} cannot be read (")
      assert reason in str(caught.value)
  for path, reason in ((tmp_path / "lost.png", "No such file"), (tmp_path, "Is a dir")):
    with pytest.raises(ValueError, match=reason):
      decoding.decode(record(path), (8, 8))

  def refuse(*_, **__):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr(pathlib.Path, "open", refuse)
  with pytest.raises(
    ValueError, match=r"text\.png cannot be read \(Permission denied\)"
  ):
    decoding.decode(record(tmp_path / "text.png"), (8, 8))


def test_a_gif_in_disguise_is_refused():
  with pytest.raises(ValueError, match="at its beginning, or none of BMP"):
    decoding.decode(record(encoded(Image.new("L", (3, 3)), "GIF")))


@pytest.mark.parametrize("limit", [50, 20])
def test_decompression_bombs_are_refused(monkeypatch, limit):
  content = encoded(
    Image.new("L", (9, 6))
  )  # PIL warns above the limit, twice it raises
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
  with pytest.raises(
    ValueError, match=rf"cannot be read \((9 x 6|it) is over {limit} pixels\)"
  ):
    decoding.original_size(record(content))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_bomb_limit_holds_without_warnings_as_errors(monkeypatch):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
  with pytest.raises(ValueError, match=r"\(9 x 6 is over 50 pixels\)"):
    decoding.decode(record(encoded(Image.new("L", (9, 6)))))


def test_the_problems_are_those_of_files_that_lack_pixels(tmp_path):
  content = encoded(Image.fromarray(noise(60, 90)))
  (tmp_path / "cut.png").write_bytes(content[:700])  # whose header is whole
  (tmp_path / "empty.png").touch()
  bad = [record(tmp_path / f"{name}.png") for name in ("cut", "empty")]
  found = decoding.problems([record(content), bad[0], record(content), bad[1]])
  assert [each for each, _ in found] == bad
  assert "truncated" in found[0][1] and "(it is empty)" in found[1][1]
  assert decoding.problems([]) == []


def test_a_complaint_has_a_line_for_each_of_the_first_files():
  assert decoding.complaint("Bad:", ["two\nlines", "b"]) == "Bad:\ntwo\\nlines\nb"
  found = decoding.complaint("Bad:", [str(at) for at in range(23)]).splitlines()
  assert found == ["Bad:", *(str(at) for at in range(20)), "and 3 more"]


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "pipe.png")
  with pytest.raises(ValueError, match=r"pipe\.png cannot be read \(it is no regular"):
    decoding.decode(record(tmp_path / "pipe.png"))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_several_pictures_are_refused_by_header(form):
  first, second = (Image.fromarray(noise(6, 9, seed=seed)) for seed in range(2))
  content = encoded(first, form, save_all=True, append_images=[second])
  for read in (decoding.decode, decoding.original_size):
    with pytest.raises(ValueError, match="it holds 2 pictures; save each in a file"):
      read(record(content))
