"""An encoded image wherever it lies: in a file, in memory, or in a larger file."""

from collections.abc import Callable
import dataclasses
import io
import pathlib

from jaxtyping import UInt8
import numpy as np
from PIL import Image


@dataclasses.dataclass(frozen=True)
class Stored:
  """An image within a larger file, read anew whenever its bytes are asked for.

  `read` may be called by several threads at once, and raises a ValueError that says
  why the bytes cannot be had.
  """

  name: str  # what messages call it
  read: Callable[[], bytes] = dataclasses.field(compare=False, repr=False)

  def __str__(self) -> str:
    return self.name


Encoded = pathlib.Path | bytes | Stored


def opened(image: Encoded) -> io.BufferedIOBase:
  """A file to read the image's bytes from, which the caller closes.

  Raises:
    OSError, ValueError: the bytes cannot be had.
  """
  if isinstance(image, pathlib.Path):
    return image.open("rb")
  return io.BytesIO(image if isinstance(image, bytes) else image.read())


def png(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
  """The pixels as a PNG file's bytes."""
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG", compress_level=1)
  return file.getvalue()


def name(image: Encoded, nameless: str) -> str:
  """What a message calls the image; `nameless` if it is only bytes."""
  return nameless if isinstance(image, bytes) else str(image)
