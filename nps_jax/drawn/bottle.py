"""A bottle of one of three juices; its icon names the juice, and its level is fixed."""

from collections.abc import Collection

import numpy as np

from nps_jax.drawn import drawing

LEVEL = 0.36  # of the juice's surface
JUICES = {
  "cherry": (0.55, 0.07, 0.13),
  "orange": (0.90, 0.52, 0.08),
  "pear": (0.80, 0.82, 0.45),
}
STRANGE = ((0.2, 0.5, 0.25), (0.25, 0.3, 0.65), (0.45, 0.25, 0.5))
GLASS, PAPER, INK = (0.72, 0.78, 0.80), (0.94, 0.93, 0.89), (0.16, 0.18, 0.3)
ICON, TEXT = (0.58, 0.20, 0.17), (0.78, 0.20, 0.10)  # labels: y, width, height
PROFILE = ((0.12, 0.055), (0.24, 0.06), (0.34, 0.15), (0.90, 0.155), (0.93, 0.14))

FLAWS = (
  drawing.Flaw("wrong_icon", logical=True, saturation=0.034, relative=False),
  drawing.Flaw("wrong_level", logical=True, saturation=1.0),
  drawing.Flaw("missing_label", logical=True, saturation=0.5),
  drawing.Flaw("swapped_labels", logical=True, saturation=0.5),
  drawing.Flaw("torn_label", logical=False, saturation=1.0),
  drawing.Flaw("stain", logical=False, saturation=1.0),
  drawing.Flaw("scratch", logical=False, saturation=0.5),
  drawing.Flaw("strange_juice", logical=False, saturation=0.02, relative=False),
)
PAIRS = (("wrong_icon", "wrong_level"), ("torn_label", "stain"))


def draw(rng: np.random.Generator, flaws: Collection[str]) -> drawing.Drawing:
  """The bottle before a wall."""
  flaw_outlines: dict[str, list[drawing.Outline]] = {}
  juice = list(JUICES)[rng.integers(len(JUICES))]
  colour = drawing.jitter(rng, JUICES[juice])
  level = LEVEL + rng.normal(0, 0.004)
  if "wrong_level" in flaws:
    level += rng.choice([-0.5, 1]) * rng.uniform(0.07, 0.14)
    top, bottom = sorted((level, LEVEL))
    flaw_outlines["wrong_level"] = [_inside(top, bottom, inset=0.012)]
  body = _inside(level, 0.92, inset=0.012)
  if "strange_juice" in flaws:
    colour = drawing.jitter(rng, STRANGE[rng.integers(len(STRANGE))])
    flaw_outlines["strange_juice"] = [body]
  shapes = [
    drawing.Shape(_inside(0.12, 0.93), drawing.jitter(rng, GLASS)),
    drawing.Shape(body, colour),
    drawing.Shape(
      drawing.rectangle(0.5, 0.105, 0.13, 0.05), drawing.jitter(rng, (0.75, 0.7, 0.3))
    ),
  ]
  shapes += _labels(rng, juice, flaws, body, flaw_outlines)
  shapes.append(_gleam(rng))
  if "stain" in flaws:
    x, y = 0.5 + rng.uniform(-0.1, 0.1), rng.uniform(0.45, 0.85)
    spot = drawing.blob(rng, x, y, rng.uniform(0.016, 0.03))
    shapes.append(drawing.Shape(spot, drawing.jitter(rng, (0.25, 0.17, 0.1))))
    flaw_outlines["stain"] = [spot]
  if "scratch" in flaws:
    x, y = 0.5 + rng.uniform(-0.08, 0.08), rng.uniform(0.42, 0.62)
    steps = rng.uniform((-0.05, 0.03), (0.05, 0.08), (4, 2)).cumsum(axis=0)
    line = drawing.stroke(np.array([x, y]) + steps * 0.8, 0.009)
    shapes += [drawing.Shape(segment, (0.30, 0.32, 0.34)) for segment in line]
    flaw_outlines["scratch"] = line
  return drawing.Drawing(
    background=drawing.jitter(rng, (0.45, 0.47, 0.45)),
    shapes=shapes,
    flaws=flaw_outlines,
  )


def _inside(top: float, bottom: float, inset: float = 0.0) -> drawing.Outline:
  """The bottle's silhouette between two heights."""
  heights, widths = np.transpose(PROFILE)
  y = np.linspace(top, bottom, 40)
  half = np.interp(y, heights, widths) - inset
  left, right = np.stack([0.5 - half, y], 1), np.stack([0.5 + half, y], 1)
  return np.concatenate([left, right[::-1]])


def _gleam(rng: np.random.Generator) -> drawing.Shape:
  x, top = 0.385 + rng.normal(0, 0.004), rng.uniform(0.42, 0.5)
  outline = drawing.rectangle(x, (top + 0.8) / 2, 0.012, 0.8 - top)
  return drawing.Shape(outline, (0.93, 0.94, 0.95))


def _labels(
  rng: np.random.Generator,
  juice: str,
  flaws: Collection[str],
  body: drawing.Outline,
  flaw_outlines: dict[str, list[drawing.Outline]],
) -> list[drawing.Shape]:
  """Both labels with what is printed on them; flaws' places join `flaw_outlines`."""
  icon, paper = juice, drawing.jitter(rng, PAPER, 0.02)
  places = {"icon": ICON, "text": TEXT}
  if "swapped_labels" in flaws:
    middle, gap = (ICON[0] + TEXT[0]) / 2, 0.16
    places["icon"] = (middle + gap / 2, *ICON[1:])
    places["text"] = (middle - gap / 2 - 0.02, *TEXT[1:])
  shift = rng.normal(0, 0.004, 2)
  outlines = {
    name: drawing.rectangle(0.5, y, width, height) + shift
    for name, (y, width, height) in places.items()
  }
  if "swapped_labels" in flaws:
    flaw_outlines["swapped_labels"] = list(outlines.values())
  if "missing_label" in flaws:
    name = list(places)[rng.integers(2)]
    flaw_outlines["missing_label"] = [outlines[name]]
    del places[name]
  if "wrong_icon" in flaws:
    icon = rng.choice([fruit for fruit in JUICES if fruit != juice])
    flaw_outlines["wrong_icon"] = [outlines["icon"], body]
  shapes = []
  for name, (middle, _, height) in places.items():
    shapes.append(drawing.Shape(outlines[name], paper))
    x, y = 0.5 + shift[0], middle + shift[1]
    shapes += _icon(rng, str(icon), x, y) if name == "icon" else _print(x, y, height)
  if "torn_label" in flaws:
    name = list(places)[rng.integers(len(places))]
    hole = _torn(rng, outlines[name])
    shapes.append(drawing.Shape(hole, drawing.jitter(rng, JUICES[juice])))
    flaw_outlines["torn_label"] = [hole]
  return shapes


def _icon(
  rng: np.random.Generator, juice: str, x: float, y: float
) -> list[drawing.Shape]:
  """A picture of the fruit."""
  green = drawing.jitter(rng, (0.2, 0.45, 0.15))
  leaf = drawing.turned(drawing.disc(0.0, 0.0, 0.022, 0.45), -0.6, x + 0.022, y - 0.05)
  if juice == "cherry":
    red = drawing.jitter(rng, (0.75, 0.08, 0.14))
    stems = [
      drawing.stroke([(x + side, y + 0.02), (x, y - 0.05)], 0.007)[0]
      for side in (-0.035, 0.035)
    ]
    balls = [drawing.disc(x + side, y + 0.03, 0.03) for side in (-0.035, 0.035)]
    return [drawing.Shape(outline, green) for outline in (*stems, leaf)] + [
      drawing.Shape(outline, red) for outline in balls
    ]
  if juice == "orange":
    ball = drawing.disc(x, y + 0.01, 0.056)
    shapes = [drawing.Shape(ball, drawing.jitter(rng, (0.96, 0.58, 0.1)))]
    spokes = [
      drawing.stroke(
        [(x, y + 0.01), (x + 0.048 * np.cos(t), y + 0.01 + 0.048 * np.sin(t))], 0.004
      )[0]
      for t in np.arange(6) * np.pi / 3
    ]
    shapes += [drawing.Shape(spoke, (0.99, 0.85, 0.6)) for spoke in spokes]
    return [*shapes, drawing.Shape(leaf, green)]
  colour = drawing.jitter(rng, (0.75, 0.78, 0.25))
  parts = (
    drawing.disc(x, y + 0.028, 0.042, 0.9),
    drawing.disc(x, y - 0.02, 0.024, 1.2),
  )
  stem = drawing.stroke([(x, y - 0.045), (x + 0.008, y - 0.068)], 0.008)
  shapes = [drawing.Shape(part, colour) for part in parts]
  return [*shapes, *(drawing.Shape(segment, (0.35, 0.22, 0.1)) for segment in stem)]


def _print(x: float, y: float, height: float) -> list[drawing.Shape]:
  """Lines of print, the same on every label."""
  lines = ((-0.25, 0.12), (0.02, 0.16), (0.27, 0.08))
  return [
    drawing.Shape(drawing.rectangle(x, y + at * height, width, 0.014), INK)
    for at, width in lines
  ]


def _torn(rng: np.random.Generator, label: drawing.Outline) -> drawing.Outline:
  """A ragged corner of the label."""
  corner, centre = label[rng.integers(4)], label.mean(axis=0)
  inward = np.sign(centre - corner)
  across, down = rng.uniform(0.07, 0.11), rng.uniform(0.05, 0.08)
  tears = [(0, 0), (across, 0), (across * 0.6, down * 0.35)]
  tears += [(across * 0.45, down * 0.75), (0, down)]
  return corner + inward * np.array(tears) + -0.002 * inward
