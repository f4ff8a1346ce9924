"""The grey values of a mask file, whatever its encoding, and which of them mark."""

from jaxtyping import Bool, Shaped
import numpy as np
from PIL import Image

from nps_jax.data import decoding
from nps_jax.data import encoded

WIDE = 0.5  # share of its image that a mask covers, above which it is told
CORNERS = ((0, 0), (0, -1), (-1, 0), (-1, -1))


def read(
  source: encoded.Encoded, name: str, size: tuple[int, int]
) -> Shaped[np.ndarray, "h w"]:
  """The mask's grey values, upright as its EXIF has it; `name` opens the messages.

  A palette's colours count, not its indices; of a bilevel image white is 255. Of a
  picture in colour there may be one besides black, which is its brightest part's value.

  Raises:
    ValueError: it cannot be read, has another size, several colours or transparency.
  """
  with decoding.opened(source, name) as image:
    turn = decoding.turn(image)
    form = "RGBA" if "transparency" in image.info else "RGB"
    pixels = np.asarray(image.convert(form) if image.mode == "P" else image)
  values = _grey(pixels, name)
  if turn is not None:
    values = np.asarray(Image.fromarray(values).transpose(turn))
  if values.shape != size:
    raise ValueError(
      f"{name} is {values.shape[0]} x {values.shape[1]} (height x width) but its image "
      f"is {size[0]} x {size[1]}; a mask must have the image's size."
    )
  return values


def marked(values: Shaped[np.ndarray, "h w"], name: str) -> Bool[np.ndarray, "h w"]:
  """What a mask of two levels marks: what is nearer to its brighter level.

  So 0 and 1, 0 and 255, 1 and 2, or what JPEG makes of these, say the same. A mask of
  one level marks everything, if it is not black.

  Raises:
    ValueError: most of what would be marked is of neither level.
  """
  low, high = int(values.min()), int(values.max())
  if low == high:
    return np.full(values.shape, high > 0)
  # Whole numbers compared as they are: a mask as float64 would be a fifth of a GB.
  quarter, three_quarters = (high - low) // 4, -(-3 * (high - low) // 4)
  bright = values >= high - (high - low) // 2
  between = np.count_nonzero((values > low + quarter) & (values < low + three_quarters))
  if 2 * between > np.count_nonzero(bright):
    raise ValueError(
      f"{name} has many grey values between {low} and {high}; a mask has two levels, "
      "of which the brighter one marks the anomaly."
    )
  return bright


def looks_inverted(mask: Bool[np.ndarray, "h w"]) -> bool:
  """Whether it marks most of the image and all its corners, as no defect does."""
  return is_wide(mask) and all(mask[corner] for corner in CORNERS)


def is_wide(mask: Bool[np.ndarray, "h w"]) -> bool:
  """Whether it marks more than WIDE of the image."""
  return bool(mask.mean() > WIDE)


def _grey(values: Shaped[np.ndarray, "h w *c"], name: str) -> Shaped[np.ndarray, "h w"]:
  if values.dtype == bool:
    return np.uint8(255) * values
  if values.ndim == 2:
    return values
  *colours, alpha = np.moveaxis(values, 2, 0)
  if values.shape[2] not in (2, 4):
    colours, alpha = [*colours, alpha], np.full(values.shape[:2], 255)
  if np.any(alpha != 255):
    raise ValueError(f"{name} is transparent in places; save the mask without that.")
  brightest = np.max(colours, axis=0)
  if np.any(np.min(colours, axis=0) != brightest):
    found = np.unique(np.stack(colours, -1).reshape(-1, len(colours)), axis=0)
    if len(found) > 2 or found[0].any():
      raise ValueError(
        f"{name} has {len(found)} colours; a mask is grey, or one colour on black."
      )
  return brightest
