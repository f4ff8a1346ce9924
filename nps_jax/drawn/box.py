"""A lunch box: three fruits anywhere on the left, two fillings in a fixed ratio."""

from collections.abc import Collection

import numpy as np

from nps_jax.drawn import drawing

LEFT, RIGHT = (0.105, 0.475), (0.525, 0.895)  # of the compartments, in x
TOP, BOTTOM = 0.16, 0.84
BORDER = 0.55  # between flakes above and almonds below
RADIUS = 0.082
FRUIT = {"mandarin": (0.93, 0.50, 0.10), "apple": (0.72, 0.14, 0.13)}
NORMAL = ("mandarin", "mandarin", "apple")
FRUIT_AREA = 0.019

FLAWS = (
  drawing.Flaw("missing_fruit", logical=True, saturation=FRUIT_AREA, relative=False),
  drawing.Flaw("wrong_fruit", logical=True, saturation=FRUIT_AREA, relative=False),
  drawing.Flaw("wrong_ratio", logical=True, saturation=1.0),
  drawing.Flaw("swapped_fillings", logical=True, saturation=0.5),
  drawing.Flaw("bruise", logical=False, saturation=1.0),
  drawing.Flaw("foreign_object", logical=False, saturation=1.0),
  drawing.Flaw("cracked_rim", logical=False, saturation=1.0),
)
PAIRS = (("missing_fruit", "wrong_ratio"), ("bruise", "foreign_object"))


def draw(rng: np.random.Generator, flaws: Collection[str]) -> drawing.Drawing:
  """The open box from above."""
  flaw_outlines: dict[str, list[drawing.Outline]] = {}
  white = drawing.jitter(rng, (0.88, 0.88, 0.86), 0.02)
  floor = drawing.jitter(rng, (0.70, 0.71, 0.70), 0.02)
  left, right = (
    drawing.rectangle(sum(span) / 2, 0.5, span[1] - span[0], BOTTOM - TOP)
    for span in (LEFT, RIGHT)
  )
  shapes = [
    drawing.Shape(drawing.rectangle(0.5, 0.5, 0.86, BOTTOM - TOP + 0.07), white),
    drawing.Shape(left, floor),
    drawing.Shape(right, floor),
  ]
  fruits = list(NORMAL)
  if "missing_fruit" in flaws:
    del fruits[rng.integers(3)]
    flaw_outlines["missing_fruit"] = [left]
  if "wrong_fruit" in flaws:
    fruits = ["mandarin"] * 3 if rng.integers(2) else ["mandarin", "apple", "apple"]
  places = _free_places(rng, len(fruits))
  for kind, (x, y) in zip(fruits, places, strict=True):
    shapes += _fruit(rng, kind, x, y)
  if "wrong_fruit" in flaws:
    many = max(set(fruits), key=fruits.count)
    flaw_outlines["wrong_fruit"] = [
      drawing.disc(x, y, RADIUS)
      for kind, (x, y) in zip(fruits, places, strict=True)
      if kind == many
    ]
  shapes += _fillings(rng, flaws, right, flaw_outlines)
  shapes += _damage(rng, flaws, places, flaw_outlines)
  return drawing.Drawing(
    background=drawing.jitter(rng, (0.36, 0.30, 0.25)),
    shapes=shapes,
    flaws=flaw_outlines,
  )


def _free_places(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
  """Centres in the left compartment, far enough apart."""
  room = RADIUS * 1.06
  while True:
    x = rng.uniform(LEFT[0] + room, LEFT[1] - room, count)
    y = rng.uniform(TOP + room, BOTTOM - room, count)
    away = np.hypot(x[:, None] - x[None], y[:, None] - y[None])
    if (away + np.eye(count) > 2 * room).all():
      return list(zip(x.tolist(), y.tolist(), strict=True))


def _fruit(
  rng: np.random.Generator, kind: str, x: float, y: float
) -> list[drawing.Shape]:
  """A ball with a lit side; an apple has a stalk, a mandarin a navel."""
  radius, colour = RADIUS * rng.uniform(0.94, 1.05), drawing.jitter(rng, FRUIT[kind])
  light = tuple(min(1.0, 0.12 + 0.92 * value) for value in colour)
  turn = rng.uniform(0, 2 * np.pi)
  offset = 0.3 * radius * np.array([np.cos(turn), np.sin(turn)])
  shapes = [
    drawing.Shape(drawing.disc(x, y, radius, rng.uniform(0.95, 1.0)), colour),
    drawing.Shape(drawing.disc(x - 0.02, y - 0.02, radius * 0.55), light),
  ]
  end_x, end_y = x + offset[0], y + offset[1]
  if kind == "apple":
    stalk = drawing.stroke([(x, y), (end_x, end_y)], 0.012)[0]
    return [*shapes, drawing.Shape(stalk, (0.3, 0.18, 0.08))]
  navel = drawing.disc(end_x, end_y, 0.012)
  return [*shapes, drawing.Shape(navel, (0.35, 0.45, 0.15))]


def _fillings(
  rng: np.random.Generator,
  flaws: Collection[str],
  place: drawing.Outline,
  flaw_outlines: dict[str, list[drawing.Outline]],
) -> list[drawing.Shape]:
  """Flakes above the border, almonds below it."""
  border = BORDER + rng.normal(0, 0.006)
  if "wrong_ratio" in flaws:
    border += rng.choice([-1, 1]) * rng.uniform(0.1, 0.2)
    middle, height = (border + BORDER) / 2, abs(border - BORDER)
    flaw_outlines["wrong_ratio"] = [
      drawing.rectangle(sum(RIGHT) / 2, middle, RIGHT[1] - RIGHT[0], height)
    ]
  above, below = (TOP, border), (border, BOTTOM)
  if "swapped_fillings" in flaws:
    middle = TOP + BOTTOM - border
    above, below = (middle, BOTTOM), (TOP, middle)
    flaw_outlines["swapped_fillings"] = [place]
  flakes = _heap(
    rng, above, density=520.0, length=0.023, squash=0.55, colour=(0.86, 0.70, 0.40)
  )
  almonds = _heap(
    rng, below, density=300.0, length=0.030, squash=0.5, colour=(0.52, 0.30, 0.15)
  )
  return flakes + almonds


def _heap(
  rng: np.random.Generator,
  span: tuple[float, float],
  *,
  density: float,
  length: float,
  squash: float,
  colour: drawing.Colour,
) -> list[drawing.Shape]:
  """Ellipses strewn over the right compartment between two heights."""
  shade = tuple(0.75 * value for value in colour)
  height, width = span[1] - span[0], RIGHT[1] - RIGHT[0]
  ground = drawing.rectangle(sum(RIGHT) / 2, sum(span) / 2, width, height)
  shapes = [drawing.Shape(ground, shade)]
  for _ in range(round(density * 2.4 * height * width)):
    x = rng.uniform(RIGHT[0] + length, RIGHT[1] - length)
    y = rng.uniform(span[0] + length, max(span[1] - length, span[0] + length))
    piece = drawing.disc(0.0, 0.0, length * rng.uniform(0.8, 1.1), squash)[::3]
    outline = drawing.turned(piece, rng.uniform(0, np.pi), x, y)
    shapes.append(drawing.Shape(outline, drawing.jitter(rng, colour, 0.1)))
  return shapes


def _damage(
  rng: np.random.Generator,
  flaws: Collection[str],
  places: list[tuple[float, float]],
  flaw_outlines: dict[str, list[drawing.Outline]],
) -> list[drawing.Shape]:
  """What lies over the contents."""
  shapes = []
  if "bruise" in flaws:
    x, y = places[rng.integers(len(places))] + rng.uniform(-0.03, 0.03, 2)
    bruise = drawing.blob(rng, x, y, rng.uniform(0.022, 0.034))
    flaw_outlines["bruise"] = [bruise]
    shapes.append(drawing.Shape(bruise, drawing.jitter(rng, (0.28, 0.17, 0.08))))
  if "foreign_object" in flaws:
    x, y = rng.uniform(RIGHT[0] + 0.05, RIGHT[1] - 0.05), rng.uniform(0.22, 0.78)
    piece = drawing.rectangle(0.0, 0.0, rng.uniform(0.05, 0.08), 0.022)
    foreign = drawing.turned(piece, rng.uniform(0, np.pi), x, y)
    flaw_outlines["foreign_object"] = [foreign]
    shapes.append(drawing.Shape(foreign, drawing.jitter(rng, (0.2, 0.4, 0.65))))
  if "cracked_rim" in flaws:
    x, edge = rng.uniform(0.15, 0.85), rng.choice([TOP - 0.035, BOTTOM + 0.035])
    steps = np.array([(0, -0.02), (0.012, -0.004), (-0.008, 0.006), (0.006, 0.02)])
    crack = drawing.stroke(np.array([x, edge]) + steps, 0.01)
    flaw_outlines["cracked_rim"] = crack
    shapes += [drawing.Shape(segment, (0.3, 0.27, 0.25)) for segment in crack]
  return shapes
