"""Image files, good and bad: how each is made, and what becomes of it."""

import io
import struct
from typing import NamedTuple
import zlib

import numpy as np
from PIL import Image
from PIL import ImageCms
import tifffile

LIMIT = 89478485  # Pillow's own, of pixels
KINDS = "BMP, JPEG, PNG, TIFF, WEBP"
START = f"it is damaged at its beginning, or none of {KINDS}"
DAMAGED = "it is damaged or of an unusual kind: ..."


class Case(NamedTuple):
  """One file; it is read as `pixels` or, where there are none, refused."""

  title: str
  suffix: str
  content: bytes
  sees: str  # how it is read, or the reason; ... stands for the library's own words
  pixels: np.ndarray | None = None
  within: int = 0  # how far pixels may differ


def noise(height=24, width=32, channels=3, seed=0):
  shape = (height, width, channels) if channels else (height, width)
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(image, form="PNG", **options):
  buffer = io.BytesIO()
  image.save(buffer, form, **options)
  return buffer.getvalue()


def threefold(grey):
  return np.repeat(np.asarray(grey)[..., None], 3, axis=-1)


def chunk(name, content):
  """A PNG's chunk."""
  check = struct.pack(">I", zlib.crc32(name + content))
  return struct.pack(">I", len(content)) + name + content + check


def png(width, height, depth, colour, rows):
  """A PNG of any kind, from its rows of bytes."""
  header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
  lines = zlib.compress(b"".join(b"\0" + row for row in rows))
  parts = chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
  return b"\x89PNG\r\n\x1a\n" + parts


def changed(content, place):
  """The content with one byte changed."""
  return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def pages(form, **options):
  """A file of two pages or frames."""
  first, second = Image.fromarray(noise()), Image.fromarray(noise(seed=1))
  return encoded(first, form, save_all=True, append_images=[second], **options)


RGB, GREY, ALPHA = noise(), noise(channels=0), noise(channels=0, seed=1)
ALPHA[ALPHA == 0] = 1  # WebP forgets the colour of what cannot be seen
WHOLE = {
  "BMP": encoded(Image.fromarray(RGB), "BMP"),
  "JPEG": encoded(Image.fromarray(RGB), "JPEG"),
  "PNG": encoded(Image.fromarray(RGB)),
  "TIFF": encoded(Image.fromarray(RGB), "TIFF"),
  "WebP": encoded(Image.fromarray(RGB), "WEBP", lossless=True),
}
SUFFIX = {"BMP": "bmp", "JPEG": "jpg", "PNG": "png", "TIFF": "tif", "WebP": "webp"}


def cut():
  """Files that end too early."""
  for form, content in WHOLE.items():
    places = {"its header": 4, "the middle": len(content) // 2}
    places["its last 20 bytes"] = len(content) - 20
    for place, length in places.items():
      title = f"{form} cut in {place}"
      found = Case(title, SUFFIX[form], content[:length], DAMAGED)
      if place == "its header":
        found = found._replace(sees=START)
      elif form == "PNG" and place == "its last 20 bytes":
        found = found._replace(
          sees="read: no pixel is missing, only checksums", pixels=RGB
        )
      yield found


def damaged():
  """Files with other faults."""
  whole = WHOLE["PNG"]
  data = whole.index(b"IDAT")
  end = whole.index(b"IEND") - 8  # where the pixels' checksum begins
  text = chunk(b"tEXt", b"Title\0words")
  place = whole.index(b"IDAT") - 4
  wrong = changed(text, len(text) - 1)
  yield Case("zero bytes", "png", b"", "it is empty")
  yield Case("text named .png", "png", b"not an image at all\n", START)
  yield Case("PostScript named .jpg", "jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n", START)
  yield Case(
    "a bare HTML page named .webp", "webp", b"<!doctype html><title>404", START
  )
  yield Case("PNG, a byte of its header changed", "png", changed(whole, 30), START)
  yield Case("PNG, a byte of its pixels changed", "png", changed(whole, 200), DAMAGED)
  yield Case(
    "PNG, the checksum of its pixels changed",
    *("png", changed(whole, end), "read: the pixels have a second one", RGB),
  )
  yield Case(
    "PNG, the checksum of a comment changed",
    *("png", whole[:place] + wrong + whole[place:], START),
  )
  yield Case(
    "PNG without pixels", "png", whole[: data - 4] + chunk(b"IEND", b""), DAMAGED
  )
  yield Case(
    "PNG with something behind its end",
    *("png", whole + b"more", "read: what follows is ignored", RGB),
  )
  yield Case("PNG, 0 pixels wide", "png", png(0, 3, 8, 0, [b""] * 3), START)


def unusual():
  """Whole files of kinds that mean nothing sure."""
  split = "it holds 2 pictures; save each in a file of its own"
  yield Case("animated GIF named .png", "png", pages("GIF"), START)
  yield Case("animated PNG", "png", pages("PNG"), split)
  yield Case("animated WebP", "webp", pages("WEBP", lossless=True), split)
  yield Case("TIFF of two pages", "tiff", pages("TIFF"), split)
  yield Case(
    "PNG of 20000 x 20000 pixels by its header",
    *("png", png(20000, 20000, 1, 0, []), f"it is over {LIMIT} pixels"),
  )
  yield Case(
    "PNG of 12000 x 9000 pixels by its header",
    *("png", png(12000, 9000, 1, 0, []), f"12000 x 9000 is over {LIMIT} pixels"),
  )
  real = encoded(Image.fromarray(np.float32(GREY)), "TIFF")
  sees = "its pixels are floating-point numbers; save it with 8 or 16 bits"
  yield Case("TIFF of floating-point numbers", "tif", real, sees)
  deep = encoded(Image.fromarray(np.int32(GREY) + 65536), "TIFF")
  yield Case(
    "TIFF beyond 16 bits", "tif", deep, "it has grey values outside of 16 bits"
  )


def deep():
  """Files of more than 8 bits a channel."""
  sixteen = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 85
  colour = np.dstack([sixteen, sixteen[::-1], sixteen[:, ::-1]])
  rows = [row.astype(">u2").tobytes() for row in colour]
  buffer = io.BytesIO()
  tifffile.imwrite(buffer, colour, photometric="rgb")
  scaled = threefold(np.uint8(np.round(sixteen / 65535 * 255)))
  for form in ("PNG", "TIFF"):
    content = encoded(Image.fromarray(sixteen), form)
    sees = "read: grey in all three channels, divided by 257"
    yield Case(f"16-bit grey {form}", SUFFIX[form], content, sees, scaled)
  sees, high = "read: the high byte of each value", np.uint8(colour >> 8)
  yield Case("16-bit RGB PNG", "png", png(32, 24, 16, 2, rows), sees, high)
  yield Case("16-bit RGB TIFF", "tif", buffer.getvalue(), sees, high)


def usual():
  """Files that are read, and as what."""
  palette = Image.fromarray(RGB).quantize(17)
  colours = np.uint8(palette.getpalette()).reshape(-1, 3)[np.asarray(palette)]
  clear = encoded(palette, transparency=bytes(range(17)))
  two = Image.merge("LA", [Image.fromarray(each) for each in (GREY, ALPHA)])
  seen = Image.fromarray(np.dstack([RGB, ALPHA]))
  ink = noise(channels=4)
  mixed = (255.0 - ink[..., :3]) * (255.0 - ink[..., 3:]) / 255
  plain = np.full((24, 32, 4), (40, 90, 160, 20), np.uint8)
  flat = (255.0 - plain[..., :3]) * (255.0 - plain[..., 3:]) / 255
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
  exif = Image.Exif()
  exif[0x0112] = 6  # the camera was turned: the top is at the right
  turned = np.rot90(RGB, -1)
  grey = "read: grey in all three channels"
  dropped = "read: the alpha channel is dropped, not blended"
  for form, content in WHOLE.items():
    if form != "JPEG":
      yield Case(f"8-bit RGB {form}", SUFFIX[form], content, "read: as it is", RGB)
  even = encoded(Image.new("RGB", (32, 24), (200, 100, 50)), "JPEG")
  yield Case(
    "JPEG of one colour",
    *("jpeg", even, "read: to 2 levels", np.full_like(RGB, (200, 100, 50)), 2),
  )
  for form, suffix in (("PNG", "jpg"), ("BMP", "png"), ("TIFF", "webp")):
    sees = f"read: as {form}; the suffix tells images from other files, no more"
    yield Case(f"{form} named .{suffix}", suffix, WHOLE[form], sees, RGB)
  yield Case("8-bit grey", "png", encoded(Image.fromarray(GREY)), grey, threefold(GREY))
  bits = encoded(Image.fromarray(GREY > 99))
  black = threefold(np.uint8(255 * (GREY > 99)))
  yield Case("1-bit", "png", bits, "read: black and white", black)
  yield Case("grey with alpha", "png", encoded(two), dropped, threefold(GREY))
  yield Case("RGB with alpha, PNG", "png", encoded(seen), dropped, RGB)
  webp = encoded(seen, "WEBP", lossless=True)
  yield Case("RGB with alpha, WebP", "webp", webp, dropped, RGB)
  yield Case("palette", "png", encoded(palette), "read: its colours", colours)
  yield Case("palette with transparency", "png", clear, dropped, colours)
  sees = "read: (255 - ink) (255 - black) / 255, to a level"
  for form, values, wanted in (("TIFF", ink, mixed), ("JPEG", plain, flat)):
    content = encoded(Image.frombytes("CMYK", (32, 24), values.tobytes()), form)
    yield Case(f"CMYK {form}", SUFFIX[form], content, sees, wanted, 2)
  sees = "read: turned upright"
  for form in ("PNG", "TIFF"):
    content = encoded(Image.fromarray(RGB), form, exif=exif)
    yield Case(f"{form}, turned by its EXIF", SUFFIX[form], content, sees, turned)
  content = encoded(Image.fromarray(RGB), icc_profile=profile)
  sees = "read: as stored; the profile is not applied"
  yield Case("PNG with a colour profile", "png", content, sees, RGB)
  one = encoded(Image.new("RGB", (1, 1), (1, 2, 3)))
  yield Case("1 x 1 pixel", "png", one, "read: as it is", np.uint8([[[1, 2, 3]]]))
  pair = [Image.new("RGB", (32, 24), colour) for colour in ("black", "white")]
  both = encoded(pair[0], "MPO", save_all=True, append_images=pair[1:])
  sees = "read: the first; the second is what phones and cameras add"
  yield Case("JPEG with a second picture (MPO)", "jpg", both, sees, 0 * RGB, 2)


CASES = (*cut(), *damaged(), *unusual(), *deep(), *usual())
