"""Records to batches: decoded, shuffled or in order, sharded over hosts, padded."""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import contextlib
import functools
import io

from absl import logging
import grain
from jaxtyping import Int, UInt8
import numpy as np
from PIL import ExifTags
from PIL import Image

from nps_jax.data import records

CACHE_LIMIT = 2**30  # bytes of decoded training images that may stay in memory
EPOCHS = 2**31  # as good as endless; grain's own endless overflows at batch size 1
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

  def problem(record: records.Record) -> str | None:
    try:
      original_size(record)
    except ValueError as error:
      return str(error)
    return None

  with futures.ThreadPoolExecutor(CHECK_THREADS) as pool:
    found = [each for each in pool.map(problem, images) if each is not None]
  if found:
    more = f"\nand {len(found) - LISTED} more" if len(found) > LISTED else ""
    raise ValueError(
      f"{len(found)} of {len(images)} images cannot be read:\n"
      + "\n".join(found[:LISTED])
      + more
    )


def train_batches(
  records_by_category: Sequence[Sequence[records.Record]],
  *,
  batch_size: int,
  size: int,
  seed: int,
  threads: int,
  start_step: int = 0,
  shard_index: int = 0,
  shard_count: int = 1,
  cache: bool = True,
) -> Iterator[records.Batch]:
  """Endless shuffled batches, all categories mixed; every row is valid.

  Each epoch is a new permutation, and batches go on across its border. A row's index
  is its position among the records of all categories, one after the other; its context
  is its category's position. The order depends on the seed and the number of records,
  not on threads or shards: the shards' rows, in order, are the single host's batch.

  Args:
    batch_size: rows over all shards.
    start_step: batches to leave out at the beginning, undecoded.
    cache: keeps decoded images in memory if they take at most CACHE_LIMIT bytes.

  Raises:
    ValueError: no records, or a batch that does not divide over the shards; while
      iterating, an image that cannot be read.
  """
  images = [record for each in records_by_category for record in each]
  if not images:
    raise ValueError("There are no training images.")
  mine = _shard(batch_size, shard_index, shard_count)
  lengths = [len(each) for each in records_by_category]
  contexts = np.repeat(np.arange(len(lengths)), lengths)
  read = functools.partial(_read, images, size)
  if cache and len(images) * size * size * 3 <= CACHE_LIMIT:
    read = functools.cache(read)
  elif cache:
    logging.info("Training images exceed the cache; each epoch decodes them again.")
  # Grain shuffles epoch e with seed + e, so that neighbouring seeds would share epochs.
  spread = int(np.random.SeedSequence(seed).generate_state(1)[0])
  order = grain.MapDataset.range(len(images)).shuffle(seed=spread).repeat(EPOCHS)

  def load(index: np.ndarray) -> records.Batch:
    return _batch(read, size, contexts, index[mine])

  return _stream(order.batch(batch_size)[start_step:].map(load), threads)


def eval_batches(
  images: Sequence[records.Record],
  contexts: Sequence[int],
  *,
  batch_size: int,
  size: int,
  threads: int,
  shard_index: int = 0,
  shard_count: int = 1,
) -> Iterator[records.Batch]:
  """Each record once, in order; all shards yield the same number of batches.

  Padding rows are zero, with valid = 0 and index = -1. The shards' rows, in order, are
  the single host's batch.

  Args:
    contexts: each record's category index.
    batch_size: rows over all shards.

  Raises:
    ValueError: as many contexts as records are needed; a batch that does not divide
      over the shards; while iterating, an image that cannot be read.
  """
  if len(images) != len(contexts):
    raise ValueError(f"Found {len(contexts)} contexts for {len(images)} records.")
  mine = _shard(batch_size, shard_index, shard_count)
  read = functools.partial(_read, images, size)
  context = np.asarray(contexts, np.int32)

  def load(step: int) -> records.Batch:
    index = np.arange(step * batch_size, (step + 1) * batch_size)[mine]
    return _batch(read, size, context, np.where(index < len(images), index, -1))

  steps = grain.MapDataset.range(-(-len(images) // batch_size))
  return _stream(steps.map(load), threads)


def _read(
  images: Sequence[records.Record], size: int, index: int
) -> UInt8[np.ndarray, "h w 3"]:
  return decode(images[index], size)


def _batch(
  read: Callable[[int], np.ndarray],
  size: int,
  contexts: Int[np.ndarray, " n"],
  index: Int[np.ndarray, " b"],
) -> records.Batch:
  """The rows of the given records; index -1 stands for padding."""
  valid = index >= 0
  image = np.zeros((len(index), size, size, 3), np.uint8)
  for row in np.flatnonzero(valid):
    image[row] = read(int(index[row]))
  context = np.where(valid, contexts[index], 0)
  return records.Batch(
    image, np.int32(context), np.float32(valid), index.astype(np.int32)
  )


def _shard(batch_size: int, shard_index: int, shard_count: int) -> slice:
  """The rows of a global batch that are this shard's."""
  if batch_size < 1 or batch_size % shard_count:
    raise ValueError(
      f"Batch size is {batch_size}, which does not divide over {shard_count} hosts. "
      f"Use a multiple of {shard_count}."
    )
  rows = batch_size // shard_count
  return slice(shard_index * rows, (shard_index + 1) * rows)


def _stream(batches: grain.MapDataset, threads: int) -> Iterator[records.Batch]:
  """The batches in order, read ahead by threads; memory holds threads + 1 of them."""
  ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
  iterator = iter(batches.to_iter_dataset(ahead))
  try:
    yield from iterator
  finally:
    iterator.close()


@contextlib.contextmanager
def _opened(record: records.Record) -> Iterator[Image.Image]:
  """The image with its header read; what fails within becomes one kind of error."""
  held = isinstance(record.image, bytes)
  try:
    with contextlib.ExitStack() as stack:
      source = io.BytesIO(record.image) if held else record.image.open("rb")
      image = Image.open(stack.enter_context(source), formats=FORMATS)
      stack.enter_context(image)
      _check_header(image)
      yield image
  except Exception as error:  # PIL's readers raise many kinds on damaged files
    name = f"The image of {record.id}" if held else f"{record.image}"
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
    held = isinstance(record.image, bytes)
    length = len(record.image) if held else record.image.stat().st_size
    return f"it is none of {', '.join(FORMATS)}" if length else "it is empty"
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
