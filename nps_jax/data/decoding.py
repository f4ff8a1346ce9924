"""One encoded image: decoded to RGB, or measured from its header alone."""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import contextlib

from jaxtyping import UInt8
import numpy as np
from PIL import ExifTags
from PIL import Image

from nps_jax.data import encoded
from nps_jax.data import records

CHECK_THREADS = 8  # they wait for the disk more than they compute
LISTED = 20  # unreadable images that a message shows at most
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")  # PIL knows riskier ones too
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
  record: records.Record, size: int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
  """The image in RGB, squeezed to size x size (antialiased bilinear) or as it is.

  It is turned as its EXIF says. Transparency is dropped, not blended: what colour lies
  behind a product is unknown. 16-bit grey is divided by 257, so its full range is ours.

  Raises:
    ValueError: the image cannot be read; names it and the reason.
  """
  with _opened(record) as image:
    turn = _turn(image)
    rgb = _rgb(image)
    rgb = rgb if turn is None else rgb.transpose(turn)
    if size is not None:
      rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.array(rgb)


def original_size(record: records.Record) -> tuple[int, int]:
  """The height and width of `decode(record)`, from the file's header alone.

  Raises:
    ValueError: the header cannot be read; names the image and the reason.
  """
  with _opened(record) as image:
    sideways = _turn(image) in [TURNS[each] for each in (5, 6, 7, 8)]
    return (image.width, image.height) if sideways else (image.height, image.width)


def check(images: Sequence[records.Record]) -> None:
  """Reads every header, so that bad files come to light before training.

  Raises:
    ValueError: some images cannot be read; counts and lists them.
  """
  if found := problems(images, original_size):
    raise ValueError(complaint([why for _, why in found], len(images)))


def complaint(bad: Sequence[str], count: int) -> str:
  """The message on `problems` among `count` images: how many, and the first ones."""
  more = [f"and {len(bad) - LISTED} more"] if len(bad) > LISTED else []
  head = f"{len(bad)} of {count} images cannot be read:"
  return "\n".join([head, *bad[:LISTED], *more])


def problems(
  images: Sequence[records.Record], read: Callable[[records.Record], object]
) -> list[tuple[records.Record, str]]:
  """The images that cannot be read, and why.

  Args:
    read: `original_size`, which goes by the header, or `decode`, by every pixel.
  """

  def problem(record: records.Record) -> str | None:
    try:
      read(record)
    except ValueError as error:
      return str(error)
    return None

  with futures.ThreadPoolExecutor(CHECK_THREADS) as pool:
    answers = zip(images, pool.map(problem, images), strict=True)
    return [(record, why) for record, why in answers if why is not None]


@contextlib.contextmanager
def _opened(record: records.Record) -> Iterator[Image.Image]:
  """The image with its header read; what fails within becomes one kind of error."""
  try:
    with (
      encoded.opened(record.image) as file,
      Image.open(file, formats=FORMATS) as image,
    ):
      _check_header(image)
      yield image
  except Exception as error:  # PIL's readers raise many kinds on damaged files
    name = encoded.name(record.image, f"The image of {record.id}")
    raise ValueError(
      f"{name} cannot be read ({_reason(record, error)}). Replace or remove it."
    ) from error


def _check_header(image: Image.Image) -> None:
  limit = Image.MAX_IMAGE_PIXELS
  if limit is not None and image.width * image.height > limit:
    raise ValueError(f"{image.width} x {image.height} is over {limit} pixels")
  if image.mode == "F":
    raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")


def _reason(record: records.Record, error: Exception) -> str:
  """Why an image cannot be read, in words."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  if isinstance(error, Image.UnidentifiedImageError):
    with encoded.opened(record.image) as file:
      return f"it is none of {', '.join(FORMATS)}" if file.read(1) else "it is empty"
  return str(error) or type(error).__name__


def _turn(image: Image.Image) -> Image.Transpose | None:
  """How the pixels must be turned to stand upright."""
  if image.format == "TIFF":  # which PIL turns by itself
    return None
  # The plain reader: PNG's own one would decode the pixels, in search of a late chunk.
  exif = Image.Image.getexif(image)
  return TURNS.get(exif.get(ExifTags.Base.Orientation, 1))


def _rgb(image: Image.Image) -> Image.Image:
  """Any mode in 8-bit RGB."""
  if image.mode.startswith("I"):
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
      raise ValueError("it has grey values outside of 16 bits")
    return Image.fromarray(np.uint8((values + 128) // 257)).convert("RGB")
  if image.mode == "P" and "transparency" in image.info:
    image = image.convert("RGBA")  # PIL warns of the direct way
  return image.convert("RGB")
