"""Drawn photographs: outlines under a pose, then light, lens and sensor."""

from collections.abc import Sequence
import itertools
from typing import NamedTuple

from jaxtyping import Bool, Float, UInt8
import numpy as np
from PIL import Image
from PIL import ImageDraw
from scipy import ndimage

FINE = 3  # a pixel is drawn as FINE x FINE of them, which smooths its edges
Outline = Float[np.ndarray, "_n 2"]  # x and y of a polygon's corners, unit square
Colour = tuple[float, float, float]  # red, green, blue in 0..1


class Shape(NamedTuple):
  """A filled polygon."""

  outline: Outline
  colour: Colour


class Flaw(NamedTuple):
  """A defect kind of a product, and how much of its area counts as finding it."""

  name: str
  logical: bool  # else structural
  saturation: float  # share of the channel if relative, else of the image's area
  relative: bool = True


class Drawing(NamedTuple):
  """A product in one state; later shapes cover earlier ones."""

  background: Colour
  shapes: list[Shape]
  flaws: dict[str, list[Outline]]  # where each flaw is, by name


class Pose(NamedTuple):
  """How the product lies before the camera."""

  angle: float  # radians
  scale: float
  shift: tuple[float, float]


def random_pose(rng: np.random.Generator) -> Pose:
  """Up to 2.5 degrees, 3 % of scale and 2 % of the side."""
  x, y = rng.uniform(-0.02, 0.02, 2)
  return Pose(
    angle=rng.uniform(-0.044, 0.044), scale=rng.uniform(0.97, 1.03), shift=(x, y)
  )


def disc(x: float, y: float, radius: float, squash: float = 1.0) -> Outline:
  """A circle, or an ellipse whose height is `squash` of its width."""
  turn = np.linspace(0, 2 * np.pi, 36, endpoint=False)
  return np.stack(
    [x + radius * np.cos(turn), y + squash * radius * np.sin(turn)], axis=1
  )


def rectangle(x: float, y: float, width: float, height: float) -> Outline:
  """A rectangle around its centre."""
  corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
  return np.array([x, y]) + corners * np.array([width, height])


def stroke(
  points: Sequence[tuple[float, float]] | Outline, width: float
) -> list[Outline]:
  """A line through the points with round ends, as one outline for each segment."""
  line, parts = np.asarray(points, float), []
  for start, end in itertools.pairwise(line):
    run, rise = end - start
    turn = np.arctan2(rise, run) + np.linspace(np.pi / 2, 3 * np.pi / 2, 9)
    cap = width / 2 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    parts.append(np.concatenate([start + cap, end - cap]))
  return parts


def blob(rng: np.random.Generator, x: float, y: float, radius: float) -> Outline:
  """An irregular patch of about that radius."""
  turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
  reach = np.ones_like(turn)
  for wave in range(2, 6):
    reach += 0.3 / wave * rng.normal() * np.cos(wave * turn + rng.uniform(0, 6.3))
  reach = radius * np.clip(reach, 0.4, 1.8)
  return np.stack([x + reach * np.cos(turn), y + reach * np.sin(turn)], axis=1)


def turned(outline: Outline, angle: float, x: float, y: float) -> Outline:
  """The outline turned about the origin, then moved there."""
  cos, sin = np.cos(angle), np.sin(angle)
  return np.einsum("ij,nj->ni", [[cos, -sin], [sin, cos]], outline) + np.array([x, y])


def jitter(rng: np.random.Generator, colour: Colour, spread: float = 0.04) -> Colour:
  """The colour a little off, in brightness more than in hue."""
  values = np.asarray(colour) * np.exp(rng.normal(0, spread))
  values = values + rng.normal(0, spread / 4, 3)
  return tuple(np.clip(values, 0, 1).tolist())


def paint(drawing: Drawing, pose: Pose, size: int) -> Float[np.ndarray, "h w 3"]:
  """The scene without any light or lens, in 0..1."""
  canvas = Image.new("RGB", (size * FINE,) * 2, _bytes(drawing.background))
  brush = ImageDraw.Draw(canvas)
  for shape in drawing.shapes:
    brush.polygon(_pixels(shape.outline, pose, size), fill=_bytes(shape.colour))
  return np.asarray(canvas.reduce(FINE), np.float64) / 255


def cover(
  outlines: Sequence[Outline], pose: Pose, size: int
) -> Bool[np.ndarray, "h w"]:
  """The pixels that lie about half inside the outlines, and at least one."""
  canvas = Image.new("L", (size * FINE,) * 2)
  brush = ImageDraw.Draw(canvas)
  for outline in outlines:
    brush.polygon(_pixels(outline, pose, size), fill=255)
  share = np.asarray(canvas.reduce(FINE))
  return share >= max(1, min(128, int(share.max())))


def photograph(
  rng: np.random.Generator, scene: Float[np.ndarray, "h w 3"]
) -> UInt8[np.ndarray, "h w 3"]:
  """The scene under a random lamp, through a random lens, onto a noisy sensor."""
  size = scene.shape[0]
  y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
  slope = rng.uniform(0, 2 * np.pi)
  light = 1 + rng.uniform(0, 0.3) * (np.cos(slope) * x + np.sin(slope) * y)
  spot_x, spot_y = rng.uniform(-0.5, 0.5, 2)
  away = np.square(x - spot_x) + np.square(y - spot_y)
  light += rng.uniform(0, 0.2) * np.exp(-away / (2 * rng.uniform(0.1, 0.3) ** 2))
  light *= np.exp(rng.normal(0, 0.06))
  light *= 1 + 0.02 * _grain(rng, size, 6) + 0.01 * _grain(rng, size, size // 6)
  balance = np.exp(rng.normal(0, 0.03, 3))
  image = scene * light[..., None] * balance[None, None, :]
  blur = rng.uniform(0.3, 0.9) * size / 256
  image = ndimage.gaussian_filter(image, (blur, blur, 0))
  image = image + rng.normal(0, rng.uniform(0.004, 0.014), image.shape)
  return np.uint8(np.rint(255 * np.clip(image, 0, 1)))


def _grain(rng: np.random.Generator, size: int, cells: int) -> Float[np.ndarray, "h w"]:
  """Smooth noise of spread 1 with about that many cells along a side."""
  coarse = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
  return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float64)


def _pixels(outline: Outline, pose: Pose, size: int) -> list[tuple[float, float]]:
  """The outline's corners on the fine canvas."""
  x, y = pose.shift
  placed = turned((outline - 0.5) * pose.scale, pose.angle, 0.5 + x, 0.5 + y)
  return [tuple(corner) for corner in (placed * size * FINE).tolist()]


def _bytes(colour: Colour) -> tuple[int, ...]:
  return tuple(round(255 * value) for value in colour)
