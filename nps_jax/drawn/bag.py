"""A bag with two screws, two nuts and two washers that lie anywhere in it."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from nps_jax.drawn import drawing

LONG, SHORT, SHAFT = 0.30, 0.19, 0.030
NUT, WASHER = 0.046, 0.047  # outer radius
STEEL, BRASS, ZINC = (0.45, 0.46, 0.50), (0.68, 0.55, 0.25), (0.60, 0.61, 0.63)
INSIDE = (0.72, 0.73, 0.71)  # seen through the bag, and through holes
LOW, HIGH = 0.17, 0.83  # parts lie within
CONTENTS = ("long", "short", "nut", "nut", "washer", "washer")
SCREW_AREA, RING_AREA = 0.0065, 0.0048

FLAWS = (
  drawing.Flaw("missing_screw", logical=True, saturation=SCREW_AREA, relative=False),
  drawing.Flaw("missing_nut", logical=True, saturation=RING_AREA, relative=False),
  drawing.Flaw("extra_washer", logical=True, saturation=RING_AREA, relative=False),
  drawing.Flaw("wrong_length", logical=True, saturation=SCREW_AREA, relative=False),
  drawing.Flaw("bent_screw", logical=False, saturation=0.5),
  drawing.Flaw("rust", logical=False, saturation=1.0),
  drawing.Flaw("dirt", logical=False, saturation=1.0),
)
PAIRS = (("missing_nut", "extra_washer"), ("rust", "dirt"))


class Part(NamedTuple):
  """A part of the bag's contents, where it lies, and what it covers."""

  kind: str
  spine: np.ndarray  # points [n 2] along its middle
  reach: float  # of its body around these points
  shapes: list[drawing.Shape]


def draw(rng: np.random.Generator, flaws: Collection[str]) -> drawing.Drawing:
  """The bag on a table."""
  flaw_outlines: dict[str, list[drawing.Outline]] = {}
  hue = drawing.jitter(rng, INSIDE, 0.02)
  bag = drawing.rectangle(0.5, 0.5, 0.78, 0.8)
  shapes = [
    drawing.Shape(bag, hue),
    drawing.Shape(drawing.rectangle(0.5, 0.115, 0.78, 0.03), (0.55, 0.62, 0.72)),
  ]
  bent = rng.integers(2) if "bent_screw" in flaws else -1
  parts: list[Part] = []
  for at, kind in enumerate(_contents(rng, flaws)):
    bend = rng.choice([-1, 1]) * rng.uniform(0.7, 1.2) if at == bent else 0.0
    parts.append(_place(rng, kind, hue, bend, parts))
    if at == bent:
      flaw_outlines["bent_screw"] = _outlines([parts[-1]])
  for name in ("missing_screw", "missing_nut"):
    if name in flaws:
      flaw_outlines[name] = [bag]
  if "extra_washer" in flaws:
    washers = [part for part in parts if part.kind == "washer"]
    flaw_outlines["extra_washer"] = _outlines(washers)
  if "wrong_length" in flaws:
    screws = [part for part in parts if part.kind in ("long", "short")]
    flaw_outlines["wrong_length"] = _outlines(screws)
  shapes += [shape for part in parts for shape in part.shapes]
  if "rust" in flaws:
    part = parts[rng.integers(len(parts))]
    x, y = part.spine[0] + (part.reach if part.kind in ("nut", "washer") else 0) * 0.6
    rust = _spot(rng, x, y, radius=0.026, colour=(0.45, 0.2, 0.08))
    flaw_outlines["rust"] = [rust.outline]
    shapes.append(rust)
  if "dirt" in flaws:
    x, y = rng.uniform(0.2, 0.8, 2)
    dirt = _spot(rng, x, y, radius=0.022, colour=(0.2, 0.18, 0.15))
    flaw_outlines["dirt"] = [dirt.outline]
    shapes.append(dirt)
  return drawing.Drawing(
    background=drawing.jitter(rng, (0.30, 0.31, 0.34)),
    shapes=shapes,
    flaws=flaw_outlines,
  )


def _contents(rng: np.random.Generator, flaws: Collection[str]) -> list[str]:
  """The kinds of the parts, screws first."""
  kinds = list(CONTENTS)
  if "wrong_length" in flaws:
    kinds[:2] = [str(rng.choice(["long", "short"]))] * 2
  if "missing_nut" in flaws:
    kinds.remove("nut")
  if "extra_washer" in flaws:
    kinds.append("washer")
  if "missing_screw" in flaws:
    del kinds[rng.integers(2)]
  return kinds


def _outlines(parts: Sequence[Part]) -> list[drawing.Outline]:
  return [shape.outline for part in parts for shape in part.shapes]


def _spot(
  rng: np.random.Generator, x: float, y: float, radius: float, colour: drawing.Colour
) -> drawing.Shape:
  outline = drawing.blob(rng, x, y, radius * rng.uniform(0.8, 1.2))
  return drawing.Shape(outline, drawing.jitter(rng, colour))


def _place(
  rng: np.random.Generator,
  kind: str,
  hue: drawing.Colour,
  bend: float,
  placed: Sequence[Part],
) -> Part:
  """The part at a random place where it touches none of those placed before."""
  for _ in range(2000):
    angle = rng.uniform(0, 2 * np.pi)
    x, y = rng.uniform(LOW, HIGH, 2)
    part = (
      _screw(rng, kind, bend) if kind in ("long", "short") else _ring(rng, kind, hue)
    )
    spine = drawing.turned(part.spine, angle, x, y)
    low, high = spine.min() - part.reach, spine.max() + part.reach
    free = all(
      np.linalg.norm(spine[:, None] - neighbour.spine[None], axis=-1).min()
      > part.reach + neighbour.reach + 0.012
      for neighbour in placed
    )
    if free and low > LOW - 0.03 and high < HIGH + 0.03:
      shapes = [
        drawing.Shape(drawing.turned(shape.outline, angle, x, y), shape.colour)
        for shape in part.shapes
      ]
      return part._replace(spine=spine, shapes=shapes)
  raise AssertionError("The bag is too full for its parts.")


def _screw(rng: np.random.Generator, kind: str, bend: float) -> Part:
  """A screw along x around the origin: head, shaft, and notches for its thread."""
  length = (LONG if kind == "long" else SHORT) * rng.uniform(0.97, 1.03)
  steel = drawing.jitter(rng, STEEL)
  dark = tuple(0.6 * value for value in steel)
  start, knee = -length / 2, length * 0.1
  tip = (knee + (length / 2 - knee) * np.cos(bend), (length / 2 - knee) * np.sin(bend))
  shaft = drawing.stroke([(start, 0.0), (knee, 0.0), tip], SHAFT)
  shapes = [drawing.Shape(segment, steel) for segment in shaft]
  for x in np.arange(start + 0.05, knee, 0.018):
    shapes.append(drawing.Shape(drawing.rectangle(x, 0.0, 0.006, SHAFT), dark))
  head = drawing.rectangle(start, 0.0, 0.034, 0.064)
  shapes.append(drawing.Shape(head, drawing.jitter(rng, STEEL)))
  along = np.linspace((start, 0), (knee, 0), 8)
  spine = np.concatenate([along, np.linspace((knee, 0), tip, 8)])
  return Part(kind, spine, reach=0.034, shapes=shapes)


def _ring(rng: np.random.Generator, kind: str, hue: drawing.Colour) -> Part:
  """A hexagonal nut or a round washer around the origin."""
  if kind == "nut":
    turn = np.arange(6) * np.pi / 3
    outer = NUT * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    hole, colour = 0.022, BRASS
  else:
    outer, hole, colour = drawing.disc(0.0, 0.0, WASHER), 0.026, ZINC
  scale = rng.uniform(0.96, 1.04)
  shapes = [
    drawing.Shape(outer * scale, drawing.jitter(rng, colour)),
    drawing.Shape(drawing.disc(0.0, 0.0, hole * scale), hue),
  ]
  return Part(kind, spine=np.zeros((1, 2)), reach=NUT, shapes=shapes)
