"""A tray of 3 x 4 compartments, each with one pin that lies anywhere in it."""

from collections.abc import Collection

import numpy as np

from nps_jax.drawn import drawing

ROWS, COLUMNS = 3, 4
LEFT, TOP, WIDTH, HEIGHT = 0.08, 0.125, 0.21, 0.25  # of the first compartment
WALL = 0.018
LENGTH, NEEDLE, HEAD = 0.13, 0.025, 0.033  # of a pin, and its head's radius
YELLOW, STEEL = (0.93, 0.76, 0.12), (0.36, 0.37, 0.40)
STRANGE = ((0.75, 0.12, 0.12), (0.15, 0.35, 0.75), (0.15, 0.6, 0.25))
PIN_AREA = 0.0052

FLAWS = (
  drawing.Flaw("missing_pin", logical=True, saturation=PIN_AREA, relative=False),
  drawing.Flaw("extra_pin", logical=True, saturation=PIN_AREA, relative=False),
  drawing.Flaw("missing_wall", logical=True, saturation=1.0),
  drawing.Flaw("bent_pin", logical=False, saturation=0.5),
  drawing.Flaw("wrong_colour", logical=False, saturation=1.0),
  drawing.Flaw("dirt", logical=False, saturation=1.0),
)
PAIRS = (("missing_pin", "extra_pin"), ("bent_pin", "dirt"))


def draw(rng: np.random.Generator, flaws: Collection[str]) -> drawing.Drawing:
  """The tray; each flaw is in a compartment of its own."""
  shapes = [
    drawing.Shape(
      drawing.rectangle(0.5, 0.5, COLUMNS * WIDTH + WALL, ROWS * HEIGHT + WALL),
      drawing.jitter(rng, (0.62, 0.64, 0.66)),
    )
  ]
  flaw_outlines: dict[str, list[drawing.Outline]] = {}
  cells = [divmod(int(at), COLUMNS) for at in rng.permutation(ROWS * COLUMNS)]
  chosen = dict(zip(sorted(flaws), cells, strict=False))
  gone = chosen.get("missing_wall")
  wall = drawing.jitter(rng, (0.83, 0.84, 0.85))
  for place, outline in _walls():
    if gone is not None and place == (gone[0], min(gone[1], COLUMNS - 2)):
      flaw_outlines["missing_wall"] = [outline]
    else:
      shapes.append(drawing.Shape(outline, wall))
  pins: list[drawing.Shape] = []
  for cell in sorted(cells):
    mine = [name for name, place in chosen.items() if place == cell]
    pins += _cell(rng, cell, mine[0] if mine else "", flaw_outlines)
  return drawing.Drawing(
    background=drawing.jitter(rng, (0.2, 0.2, 0.22)),
    shapes=shapes + pins,
    flaws=flaw_outlines,
  )


def _walls() -> list[tuple[tuple[int, int] | None, drawing.Outline]]:
  """Every wall; those between two columns with their row and left column."""
  width, height = COLUMNS * WIDTH, ROWS * HEIGHT
  walls = [
    (None, drawing.rectangle(0.5, TOP + row * HEIGHT, width + WALL, WALL))
    for row in range(ROWS + 1)
  ]
  for x in (LEFT, LEFT + width):
    walls.append((None, drawing.rectangle(x, 0.5, WALL, height + WALL)))
  for row in range(ROWS):
    for column in range(COLUMNS - 1):
      x, y = LEFT + (column + 1) * WIDTH, TOP + (row + 0.5) * HEIGHT
      outline = drawing.rectangle(x, y, WALL, HEIGHT - WALL)
      walls.append(((row, column), outline))
  return walls


def _cell(
  rng: np.random.Generator,
  cell: tuple[int, int],
  flaw: str,
  flaw_outlines: dict[str, list[drawing.Outline]],
) -> list[drawing.Shape]:
  """The contents of a compartment; its flaw's place joins `flaw_outlines`."""
  x, y = LEFT + (cell[1] + 0.5) * WIDTH, TOP + (cell[0] + 0.5) * HEIGHT
  if flaw == "missing_pin":
    flaw_outlines[flaw] = [drawing.rectangle(x, y, WIDTH - WALL, HEIGHT - WALL)]
    return []
  bend = rng.choice([-1, 1]) * rng.uniform(1.3, 2.2) if flaw == "bent_pin" else 0.0
  head = STRANGE[rng.integers(len(STRANGE))] if flaw == "wrong_colour" else YELLOW
  first = _pin(rng, x, y, head, bend)
  if flaw == "extra_pin":
    second = _pin(rng, x, y, YELLOW, 0.0)
    while np.linalg.norm(second[-1].outline[0] - first[-1].outline[0]) < 2.2 * HEAD:
      second = _pin(rng, x, y, YELLOW, 0.0)
    first += second
    flaw_outlines[flaw] = [shape.outline for shape in first]
  elif flaw == "bent_pin":
    flaw_outlines[flaw] = [shape.outline for shape in first[:2]]
  elif flaw == "wrong_colour":
    flaw_outlines[flaw] = [first[-2].outline]
  elif flaw == "dirt":
    spot = drawing.blob(
      rng, x + rng.uniform(-0.04, 0.04), y + rng.uniform(-0.06, 0.06), 0.022
    )
    flaw_outlines[flaw] = [spot]
    first.append(drawing.Shape(spot, drawing.jitter(rng, (0.18, 0.13, 0.1))))
  return first


def _pin(
  rng: np.random.Generator, x: float, y: float, head: drawing.Colour, bend: float
) -> list[drawing.Shape]:
  """Two halves of the needle, head and cap; it lies within the compartment."""
  length = LENGTH * rng.uniform(0.95, 1.05)
  angle = rng.uniform(0, 2 * np.pi)
  tip = (length / 2 * np.cos(bend), length / 2 * np.sin(bend))
  needle = drawing.stroke([(-length / 2, 0.0), (0.0, 0.0), tip], NEEDLE)
  radius = HEAD * rng.uniform(0.94, 1.06)
  cap = drawing.disc(-length / 2, 0.0, radius / 2)
  parts = [*needle, drawing.disc(-length / 2, 0.0, radius), cap]
  corners = drawing.turned(np.concatenate(parts), angle, 0.0, 0.0)
  room = np.array([WIDTH - WALL, HEIGHT - WALL]) / 2
  low = -room - corners.min(axis=0)
  high = room - corners.max(axis=0)
  x, y = np.array([x, y]) + rng.uniform(low, high)
  steel, colour = drawing.jitter(rng, STEEL), drawing.jitter(rng, head)
  light = tuple(min(1.0, 0.25 + 0.85 * value) for value in colour)
  colours = [*[steel] * len(needle), colour, light]
  return [
    drawing.Shape(drawing.turned(part, angle, x, y), colour)
    for part, colour in zip(parts, colours, strict=True)
  ]
