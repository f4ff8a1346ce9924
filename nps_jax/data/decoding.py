"""One encoded image: decoded to RGB, or measured from its header alone."""

from collections.abc import Iterator, Sequence
from concurrent import futures
import contextlib
import pathlib

from jaxtyping import Bool, UInt8
import numpy as np
from PIL import ExifTags
from PIL import Image

from nps_jax.data import encoded
from nps_jax.data import records

CHECK_THREADS = 8  # they wait for the disk more than they compute
LISTED = 20  # bad files that a message shows at most
FILL = (124, 116, 104)  # the mean colour of ImageNet, which says least to an encoder
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")  # PIL knows riskier ones too
PAGED = ("PNG", "TIFF", "WEBP")  # formats of several pages or frames
TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation


def decode(
  record: records.Record, size: tuple[int, int] | None = None
) -> UInt8[np.ndarray, "h w 3"]:
  """The image in RGB, squeezed to this height and width (antialiased) or as it is.

  It is turned as its EXIF says. Transparency is dropped, not blended: what colour lies
  behind a product is unknown. 16-bit grey is scaled by the record's bits. What lies
  outside of the record's region becomes FILL, before anything is squeezed.

  Raises:
    ValueError: the image cannot be read; names it and the reason.
  """
  with _opened(record) as image:
    way = turn(image)
    rgb = _rgb(image, record.bits)
    rgb = rgb if way is None else rgb.transpose(way)
    rgb.load()
  if record.region is not None:
    outside = Image.fromarray(~region(record, rgb.size[::-1]))
    rgb.paste(FILL, mask=outside)
  if size is not None:
    rgb = rgb.resize(size[::-1], Image.Resampling.BILINEAR)
  return np.array(rgb)


def is_plain(record: records.Record) -> bool:
  """Whether the image has one colour all over; reads every pixel, and keeps none.

  Raises:
    ValueError: as `decode` does.
  """
  if record.region is not None:
    pixels = decode(record)
    return bool((pixels == pixels[0, 0]).all())
  with _opened(record) as image:
    extrema = _rgb(image, record.bits).getextrema()
    return all(low == high for low, high in extrema)


def region(record: records.Record, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
  """Where to look in the record's image, which has this height and width.

  Raises:
    ValueError: the region cannot be read, has another size, or is black all over.
  """
  name = encoded.name(record.region, f"The region of {record.id}")
  with opened(record.region, name) as image:
    way = turn(image)
    grey = np.asarray((image if way is None else image.transpose(way)).convert("L"))
  if grey.shape != size:
    raise ValueError(
      f"{name} is {grey.shape[0]} x {grey.shape[1]} (height x width) but the image of "
      f"{record.id} is {size[0]} x {size[1]}; a region must have its image's size."
    )
  low, high = int(grey.min()), int(grey.max())
  if not high:
    raise ValueError(f"{name} is black all over: nothing would be looked at.")
  return grey >= (low + high) / 2 if low < high else np.ones(size, bool)


def region_at(
  record: records.Record, size: tuple[int, int]
) -> Bool[np.ndarray, "h w"] | None:
  """Which cells of a grid have a part of the region in them; None: there is none.

  Args:
    size: rows and columns of the grid.
  """
  if record.region is None:
    return None
  inside = Image.fromarray(np.float32(region(record, original_size(record))))
  return np.asarray(inside.resize(size[::-1], Image.Resampling.BOX)) > 0


def original_size(record: records.Record) -> tuple[int, int]:
  """The height and width of `decode(record)`, from the file's header alone.

  Raises:
    ValueError: the header cannot be read; names the image and the reason.
  """
  with _opened(record) as image:
    sideways = turn(image) in [TURNS[orientation] for orientation in (5, 6, 7, 8)]
    return (image.width, image.height) if sideways else (image.height, image.width)


def highest(record: records.Record) -> int | None:
  """The highest grey value of a 16-bit file; None of any other.

  Raises:
    ValueError: the image cannot be read; names it and the reason.
  """
  with _opened(record) as image:
    return int(np.asarray(image).max()) if image.mode.startswith("I") else None


def complaint(head: str, bad: Sequence[str]) -> str:
  """A message on bad files: its first line, then the first of them, a line for each."""
  more = [f"and {len(bad) - LISTED} more"] if len(bad) > LISTED else []
  lines = [text.replace("\n", "\\n") for text in bad[:LISTED]]  # of a file's name
  return "\n".join([head, *lines, *more])


def problems(images: Sequence[records.Record]) -> list[tuple[records.Record, str]]:
  """The images of which some pixel cannot be read, and why."""

  def problem(record: records.Record) -> str | None:
    try:
      is_plain(record)
    except ValueError as error:
      return str(error)
    return None

  with futures.ThreadPoolExecutor(CHECK_THREADS) as pool:
    answers = zip(images, pool.map(problem, images), strict=True)
    return [(record, why) for record, why in answers if why is not None]


@contextlib.contextmanager
def opened(source: encoded.Encoded, name: str) -> Iterator[Image.Image]:
  """The image with its header read.

  Args:
    name: what error messages call it.

  Raises:
    ValueError: it cannot be opened, or something within the context fails.
  """
  try:
    if isinstance(source, pathlib.Path) and _is_special(source):
      raise _Refused("it is no regular file")  # a pipe would keep us waiting
    with encoded.opened(source) as file, Image.open(file, formats=FORMATS) as image:
      _check_header(image)
      yield image
  except Exception as error:  # PIL's readers raise many kinds on damaged files
    raise ValueError(
      f"{name} cannot be read ({_reason(source, error)}). Replace or remove it."
    ) from error


def _opened(record: records.Record) -> contextlib.AbstractContextManager[Image.Image]:
  name = encoded.name(record.image, f"The image of {record.id}")
  return opened(record.image, name)


class _Refused(ValueError):
  """Says in our words why an image cannot be used."""


class TooLarge(_Refused):
  """It has more pixels than an image may have."""


def _is_special(path: pathlib.Path) -> bool:
  return path.exists() and not (path.is_file() or path.is_dir())


def _check_header(image: Image.Image) -> None:
  limit = Image.MAX_IMAGE_PIXELS
  if limit is not None and image.width * image.height > limit:
    raise TooLarge(f"{image.width} x {image.height} is over {limit} pixels")
  if image.mode == "F":
    raise _Refused("its pixels are floating-point numbers; save it with 8 or 16 bits")
  # Which one is meant? A JPEG's second picture is a preview, or what phones add.
  if image.format in PAGED and (count := getattr(image, "n_frames", 1)) > 1:
    raise _Refused(f"it holds {count} pictures; save each in a file of its own")


def _reason(source: encoded.Encoded, error: Exception) -> str:
  """Why an image cannot be read, in words."""
  if isinstance(error, _Refused):
    return str(error)
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  if isinstance(error, Image.DecompressionBombError):
    return f"it is over {Image.MAX_IMAGE_PIXELS} pixels"
  if isinstance(error, Image.UnidentifiedImageError):
    with encoded.opened(source) as file:
      empty = not file.read(1)
    kinds = f"it is damaged at its beginning, or none of {', '.join(FORMATS)}"
    return "it is empty" if empty else kinds
  return f"it is damaged or of an unusual kind: {error or type(error).__name__}"


def turn(image: Image.Image) -> Image.Transpose | None:
  """How the pixels must be turned to stand upright."""
  if image.format == "TIFF":  # which PIL turns by itself
    return None
  # The plain reader: PNG's own one would decode the pixels, in search of a late chunk.
  exif = Image.Image.getexif(image)
  return TURNS.get(exif.get(ExifTags.Base.Orientation, 1))


def _rgb(image: Image.Image, bits: int) -> Image.Image:
  """Any mode in 8-bit RGB, grey of 16-bit files by the bits that its values have."""
  if image.mode.startswith("I"):
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
      raise _Refused("it has grey values outside of 16 bits")
    full = 2**bits - 1
    if values.max() > full:
      raise _Refused(
        f"its highest grey value is {values.max()}, above the {full} of the {bits} "
        "bits that the training images have (config.data.bits)"
      )
    levels = np.uint8((510 * np.arange(full + 1) + full) // (2 * full))  # the nearest
    grey = np.empty(values.shape, np.uint8)
    for row, line in zip(grey, values, strict=True):  # all places at once: 8 bytes each
      row[:] = levels[line]
    return Image.fromarray(grey).convert("RGB")
  if image.mode == "P" and "transparency" in image.info:
    image = image.convert("RGBA")  # PIL warns of the direct way
  return image if image.mode == "RGB" else image.convert("RGB")
