"""Edited copies of normal images, with masks: faults for which none was needed (ours).

Parts are erased, copied, exchanged, recoloured and resized without a seam, so that
only their number, kind, place or size is wrong; scratches, stains, texture from
elsewhere and bends are locally wrong. Where an image has no parts on plain ground,
only the latter are made, anywhere in it.

python -m nps_jax.edits --images=FOLDER --out=FILE.png

draws a sheet of them, a row for each kind.
"""

import argparse
from collections.abc import Callable, Sequence
from concurrent import futures
import pathlib
from typing import NamedTuple

from absl import logging
from jaxtyping import Float
import numpy as np
from PIL import Image
from PIL import ImageDraw
from scipy import ndimage

from nps_jax import console
from nps_jax import parts
from nps_jax.data import decoding
from nps_jax.data import encoded
from nps_jax.data import unlabelled
from nps_jax.runs import files

SMALLEST, LARGEST = 0.0005, 0.25  # of an edit's area, as a share of the image
VISIBLE = 12  # grey levels by which a changed place must differ, slightly blurred
SHOWN = 4  # edits of each kind on a sheet

Picture, Mask = parts.Picture, parts.Mask


class Edit(NamedTuple):
  """An edited copy of a normal image."""

  source: int  # which of the images it was
  kind: str
  image: Picture
  mask: Mask  # what was changed


class Scene(NamedTuple):
  """What an edit works on."""

  image: Picture
  parts: list[Mask]
  busy: Float[np.ndarray, "h w"]  # how much there is to see
  other: Picture  # another normal image of the category
  other_parts: list[Mask]


Kind = Callable[[np.random.Generator, Scene], tuple[Picture, Mask] | None]


def make(images: Sequence[Picture], count: int, seed: int) -> list[Edit]:
  """`count` edits of each image, of all kinds about equally often.

  Fewer where no kind fits an image.
  """
  rng = np.random.default_rng(seed)
  with futures.ThreadPoolExecutor() as pool:
    part_masks, busy = zip(*pool.map(_survey, images), strict=True)
  without = sum(not masks for masks in part_masks)
  if without:
    logging.info(
      "%d of %d images show no parts on plain ground: these get no edits of parts.",
      without,
      len(images),
    )
  edits, made = [], dict.fromkeys(KINDS, 0)
  for index, image in enumerate(images):
    other = int(rng.integers(len(images)))
    scene = Scene(
      image, part_masks[index], busy[index], images[other], part_masks[other]
    )
    for _ in range(count):
      edit = _edit(rng, scene, made)
      if edit is not None:
        edits.append(Edit(index, *edit))
  return edits


def _edit(
  rng: np.random.Generator, scene: Scene, made: dict[str, int]
) -> tuple[str, Picture, Mask] | None:
  """An edit of the rarest kind that fits the scene."""
  order = sorted(rng.permutation(list(KINDS)).tolist(), key=made.get)
  for name in order:
    edited = KINDS[name](rng, scene)
    if edited is not None and SMALLEST <= edited[1].mean() <= LARGEST:
      made[name] += 1
      return name, *edited
  return None


def _pick(rng: np.random.Generator, masks: Sequence[Mask]) -> Mask:
  return masks[rng.integers(len(masks))]


def _centre(mask: Mask) -> tuple[float, float]:
  return ndimage.center_of_mass(mask)


def _changed(before: Picture, after: Picture) -> Mask:
  """Where the images visibly differ."""
  gap = np.abs(after.astype(np.float64) - before).mean(axis=-1)
  return ndimage.gaussian_filter(gap, 1.5) > VISIBLE


def erase(rng: np.random.Generator, scene: Scene) -> tuple[Picture, Mask] | None:
  """A part is gone."""
  if not scene.parts:
    return None
  return parts.erase(rng, scene.image, _pick(rng, scene.parts))


def copy(rng: np.random.Generator, scene: Scene) -> tuple[Picture, Mask] | None:
  """A part is there once more, turned, on the same ground."""
  if not scene.parts:
    return None
  part = _pick(rng, scene.parts)
  piece = parts.turn(parts.lift(scene.image, part), rng.uniform(0, 360), 1.0)
  centre = parts.free_place(
    rng, scene.image, scene.parts, like=part, sides=piece.mask.shape
  )
  return centre and parts.set_down(scene.image, piece, centre)


def exchange(rng: np.random.Generator, scene: Scene) -> tuple[Picture, Mask] | None:
  """Another image's part lies where a part was, and looks different."""
  if not scene.parts or not scene.other_parts:
    return None
  part = _pick(rng, scene.parts)
  piece = parts.lift(scene.other, _pick(rng, scene.other_parts))
  emptied, _ = parts.erase(rng, scene.image, part)
  edited = parts.set_down(emptied, piece, _centre(part))
  if edited is None or _changed(scene.image, edited[0]).mean() < SMALLEST:
    return None
  return edited[0], edited[1] | part


def recolour(rng: np.random.Generator, scene: Scene) -> tuple[Picture, Mask] | None:
  """A part's colour channels change places; a grey part becomes lighter or darker."""
  if not scene.parts:
    return None
  part = _pick(rng, scene.parts)
  pixels = scene.image.astype(np.float64)
  orders = ((1, 2, 0), (2, 0, 1), (0, 2, 1), (2, 1, 0), (1, 0, 2))
  changed = pixels[..., orders[rng.integers(len(orders))]]
  if np.abs(changed - pixels)[part].mean() < VISIBLE:
    changed = pixels * rng.choice((0.55, 1.5))
  cover = ndimage.gaussian_filter(part.astype(float), 1.0)[..., None]
  return parts.as_picture(pixels + cover * (changed - pixels)), part


def resize(rng: np.random.Generator, scene: Scene) -> tuple[Picture, Mask] | None:
  """A part is smaller or larger."""
  if not scene.parts:
    return None
  part = _pick(rng, scene.parts)
  scale = rng.choice((0.6, 0.7, 1.4, 1.6))
  piece = parts.turn(parts.lift(scene.image, part), 0.0, scale)
  emptied, _ = parts.erase(rng, scene.image, part)
  edited = parts.set_down(emptied, piece, _centre(part))
  return edited and (edited[0], edited[1] | part)


def scratch(rng: np.random.Generator, scene: Scene) -> tuple[Picture, Mask] | None:
  """A thin wandering line, lighter or darker than where it begins."""
  h, w = scene.image.shape[:2]
  y, x = _somewhere(rng, scene.busy)
  angle, points = rng.uniform(0, 2 * np.pi), [(x, y)]
  step = rng.uniform(0.02, 0.06) * w
  for _ in range(rng.integers(3, 6)):
    angle += rng.normal(0, 0.5)
    x, y = points[-1]
    points.append((x + step * np.cos(angle), y + step * np.sin(angle)))
  fine = Image.new("L", (3 * w, 3 * h))
  line = [(3 * x, 3 * y) for x, y in points]
  width = int(rng.uniform(0.012, 0.036) * w)
  ImageDraw.Draw(fine).line(line, fill=255, width=max(1, width), joint="curve")
  cover = ndimage.gaussian_filter(np.asarray(fine.reduce(3), float) / 255, 0.6)
  pixels = scene.image.astype(np.float64)
  x, y = points[0]
  colour = pixels[y, x] + rng.choice((-1, 1)) * rng.uniform(35, 90)
  return _blend(pixels, colour, cover), cover > 0.3


def stain(rng: np.random.Generator, scene: Scene) -> tuple[Picture, Mask] | None:
  """An irregular spot in some colour of the category, or darker than its ground."""
  h, w = scene.image.shape[:2]
  centre = _somewhere(rng, scene.busy)
  radius = rng.uniform(0.012, 0.04) * w
  y, x = np.mgrid[:h, :w] - np.array(centre)[:, None, None]
  turn, reach = np.arctan2(y, x), np.ones((h, w))
  for wave in range(2, 6):
    phase = rng.uniform(0, 2 * np.pi)
    reach += 0.3 / wave * rng.normal() * np.cos(wave * turn + phase)
  spot = (np.hypot(y, x) < radius * np.clip(reach, 0.4, 1.8)).astype(float)
  cover = ndimage.gaussian_filter(spot, 0.8) * rng.uniform(0.5, 0.95)
  pixels = scene.image.astype(np.float64)
  colour = scene.other[rng.integers(h), rng.integers(w)] * rng.uniform(0.5, 1.0)
  if np.abs(colour - pixels[centre]).mean() < 2 * VISIBLE:
    colour = pixels[centre] * 0.5
  return _blend(pixels, colour, cover), cover > 0.25


def texture(rng: np.random.Generator, scene: Scene) -> tuple[Picture, Mask] | None:
  """A round piece of another place, fading into its surroundings."""
  h, w = scene.image.shape[:2]
  side = max(3, int(rng.uniform(0.05, 0.12) * w))
  top, left = rng.integers(0, h - side), rng.integers(0, w - side)
  piece = scene.other[top : top + side, left : left + side].astype(np.float64)
  y, x = np.mgrid[:side, :side] - (side - 1) / 2
  cover = np.clip(1.4 - 2.8 * np.hypot(y, x) / side, 0, 1)
  centre = _somewhere(rng, scene.busy)
  top, left = (
    int(np.clip(at - side // 2, 0, length - side))
    for at, length in zip(centre, (h, w), strict=True)
  )
  box = (slice(top, top + side), slice(left, left + side))
  pixels, whole = scene.image.astype(np.float64), np.zeros((h, w))
  if np.abs(piece - pixels[box])[cover > 0.5].mean() < VISIBLE:
    return None
  whole[box] = cover
  pixels[box] += cover[..., None] * (piece - pixels[box])
  return parts.as_picture(pixels), whole > 0.5


def bend(rng: np.random.Generator, scene: Scene) -> tuple[Picture, Mask] | None:
  """A place is twisted about its middle."""
  h, w = scene.image.shape[:2]
  centre = np.array(_somewhere(rng, scene.busy))[:, None, None]
  y, x = np.mgrid[:h, :w] - centre
  away = np.hypot(y, x) / (rng.uniform(0.06, 0.12) * w)
  angle = rng.choice((-1, 1)) * rng.uniform(0.6, 1.2) * np.clip(1 - away, 0, 1)
  rows = y * np.cos(angle) - x * np.sin(angle) + centre[0]
  columns = y * np.sin(angle) + x * np.cos(angle) + centre[1]
  channels = [
    ndimage.map_coordinates(channel, (rows, columns), order=1, mode="nearest")
    for channel in scene.image.astype(np.float64).transpose(2, 0, 1)
  ]
  twisted = parts.as_picture(np.stack(channels, axis=-1))
  return twisted, _changed(scene.image, twisted)


def _blend(pixels: np.ndarray, colour: np.ndarray, cover: np.ndarray) -> Picture:
  return parts.as_picture(pixels + cover[..., None] * (colour - pixels))


def _survey(image: Picture) -> tuple[list[Mask], Float[np.ndarray, "h w"]]:
  """The image's parts, and how much there is to see where."""
  grounds = parts.grounds(image)
  return parts.find(image, grounds), _busy(image, grounds[-1])


def _busy(image: Picture, ground: parts.Ground) -> Float[np.ndarray, "h w"]:
  """How much there is to see: edges, and another colour than around."""
  gap = np.abs(image - ground).mean(axis=-1)
  edges = ndimage.gaussian_gradient_magnitude(image.mean(axis=-1), 2)
  return ndimage.gaussian_filter(gap + 4 * edges, 4)


def _somewhere(
  rng: np.random.Generator, busy: Float[np.ndarray, "h w"]
) -> tuple[int, int]:
  """A pixel where there is something to see."""
  rows, columns = np.nonzero(busy >= np.quantile(busy, 0.4))
  at = rng.integers(len(rows))
  return int(rows[at]), int(columns[at])


KINDS: dict[str, Kind] = {
  edit.__name__: edit
  for edit in (erase, copy, exchange, recolour, resize, scratch, stain, texture, bend)
}
OF_PARTS = ("erase", "copy", "exchange", "recolour", "resize")


def sheet(edits: Sequence[Edit]) -> Image.Image:
  """SHOWN edits of each kind, a row for each; their masks are outlined."""
  h, w = edits[0].image.shape[:2]
  whole = Image.new("RGB", (SHOWN * w, len(KINDS) * h))
  for row, kind in enumerate(KINDS):
    chosen = [edit for edit in edits if edit.kind == kind][:SHOWN]
    for column, edit in enumerate(chosen):
      outline = ndimage.binary_dilation(edit.mask, iterations=3)
      outline &= ~ndimage.binary_dilation(edit.mask, iterations=2)
      pixels = np.where(outline[..., None], (255, 0, 255), edit.image)
      whole.paste(Image.fromarray(np.uint8(pixels)), (column * w, row * h))
    ImageDraw.Draw(whole).text((4, row * h + 4), kind, fill="magenta")
  return whole


def main(arguments: Sequence[str] | None = None) -> None:
  """Draws a sheet of edited normal images, to look at."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  add = parser.add_argument
  add("--images", required=True, nargs="+", help="normal images, and folders of them")
  add("--out", required=True, type=pathlib.Path, metavar="FILE.png")
  add("--seed", type=int, default=0)
  add("--size", type=int, default=256, help="pixels of an image's side")
  flags = parser.parse_args(arguments)
  console.listen()
  try:
    wanted = SHOWN * len(KINDS)
    chosen = unlabelled.images(flags.images)[: max(1, wanted)]
    images = [decoding.decode(record, (flags.size, flags.size)) for record in chosen]
    edits = make(images, -(-wanted // len(images)), flags.seed)
    if not edits:
      raise ValueError("No edit fits these images; give normal images of one category.")
    content = encoded.png(np.asarray(sheet(edits)))
    files.write_bytes(flags.out, content)
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error
  print(f"Written: {flags.out}")


if __name__ == "__main__":
  main()
