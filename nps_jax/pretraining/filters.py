"""Where the encoder's training starts: designed filters, channels handed on (ours).

The stem sees edges, bars and blobs of light and of opponent colours, as trained
networks and the first areas of the visual cortex do. Every level hands all channels of
the one below on, blurred before it takes each second point, and adds as many new ones.
Only the new ones are learned: so no level can lose what the one below has.
"""

from collections.abc import Iterator

from flax import traverse_util
from jaxtyping import Float
import numpy as np

from nps_jax import geometry
from nps_jax.models import encoder

Tree = dict
Path = tuple[str, ...]
KINDS = ("resnet18", "resnet34")  # encoders whose blocks are of two convolutions
SIDE = 7  # pixels of a stem filter
LIGHT = (1.0, 1.0, 1.0)
OPPONENTS = ((1.0, -1.0, 0.0), (-1.0, -1.0, 2.0))  # red-green, blue-yellow
PRIMARIES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
SHARE = 0.7  # spread of what each of a block's two ways adds to a new channel
BLUR = np.outer((1, 2, 1), (1, 2, 1)) / 16

_Y, _X = np.mgrid[:SIDE, :SIDE] - (SIDE // 2)


def initial(kind: str, deepest: int, seed: int) -> Tree:
  """The encoder's parameters before its training, biases 0.

  Args:
    kind: one of KINDS.
  """
  rng = np.random.default_rng(seed)
  flat = {("stem", "kernel"): stem()}
  for name, side, inputs, outputs, handed in _blocks(kind, deepest):
    conv1 = _random(rng, side, inputs, outputs)
    conv2 = _random(rng, side, outputs, outputs)
    conv2[..., :handed] = 0
    if inputs != outputs:
      flat[name, "shortcut", "kernel"] = shortcut = _random(rng, 1, inputs, outputs)
      _carry(conv1, conv2, shortcut)
    flat[name, "conv1", "kernel"] = conv1
    flat[name, "conv2", "kernel"] = conv2
  biases = {(*path[:-1], "bias"): np.zeros(k.shape[-1]) for path, k in flat.items()}
  params = {path: np.float32(leaf) for path, leaf in (flat | biases).items()}
  return traverse_util.unflatten_dict(params)


def gains(kind: str, deepest: int) -> dict[Path, Float[np.ndarray, " c"]]:
  """The spread that each new channel begins with; 0 for one handed on from below."""
  spreads = {}
  for name, _, inputs, outputs, handed in _blocks(kind, deepest):
    new = np.arange(outputs) >= handed
    spreads[name, "conv1"] = np.float32(new if inputs != outputs else np.ones(outputs))
    spreads[name, "conv2"] = np.float32(SHARE * new)
    if inputs != outputs:
      spreads[name, "shortcut"] = spreads[name, "conv2"]
  return spreads


def _blocks(kind: str, deepest: int) -> Iterator[tuple[str, int, int, int, int]]:
  """Each block's name, side, channels in and out, and how many its level is handed."""
  inputs = geometry.encoder(kind).widths[1]
  for level, blocks in encoder.plans(kind, deepest).items():
    handed = inputs if level > 2 else 0
    for index, ((outputs, side, _), _) in enumerate(blocks):
      yield f"layer{level - 1}_{index}", side, inputs, outputs, handed
      inputs = outputs


def stem() -> Float[np.ndarray, "7 7 3 64"]:
  """The stem's filters, each of length root 2."""
  filters = [
    shape[..., None] * np.asarray(colour) / np.linalg.norm(colour)
    for shape, colour in _shapes_and_colours()
  ]
  bank = np.stack(filters, axis=-1)
  return bank * np.sqrt(2 / np.square(bank).sum(axis=(0, 1, 2)))


def _shapes_and_colours() -> Iterator[tuple[np.ndarray, tuple[float, float, float]]]:
  """The stem's filters, each as a shape and a colour."""
  eighths, quarters = np.arange(8) * np.pi / 4, np.arange(4) * np.pi / 4
  for angle in eighths:
    yield _wave(angle, 8.0, 2.2, odd=True), LIGHT
    yield _wave(angle + np.pi / 8, 4.5, 1.3, odd=True), LIGHT
  for angle in quarters:
    bar = _wave(angle, 5.0, 1.6, odd=False)
    yield bar, LIGHT
    yield -bar, LIGHT
    yield _wave(angle, 3.0, 1.2, odd=False), LIGHT
  for colour in OPPONENTS:
    for angle in 2 * quarters:
      yield _wave(angle, 8.0, 2.2, odd=True), colour
      yield _wave(angle + np.pi / 4, 5.0, 1.5, odd=True), colour
  for sign in (1, -1):
    for colour in OPPONENTS:
      yield sign * _blob(1.5), colour
      yield sign * _blob(3.0), colour
    yield sign * _blob(2.0), LIGHT
    yield sign * _blob(3.0), LIGHT
    for colour in (LIGHT, *PRIMARIES):
      yield sign * (_blob(1.0) - _blob(2.0) / 4), colour


def _wave(angle: float, length: float, spread: float, *, odd: bool) -> np.ndarray:
  """A Gabor filter without a mean: an edge if it is odd, else a bar."""
  across = np.cos(angle) * _X + np.sin(angle) * _Y
  along = np.cos(angle) * _Y - np.sin(angle) * _X
  phase = 2 * np.pi * across / length
  wave = np.sin(phase) if odd else np.cos(phase)
  wave *= np.exp(-(across**2 + (0.7 * along) ** 2) / (2 * spread**2))
  return wave - wave.mean()


def _blob(spread: float) -> np.ndarray:
  return np.exp(-(_X**2 + _Y**2) / (2 * spread**2))


def _random(
  rng: np.random.Generator, side: int, inputs: int, outputs: int
) -> np.ndarray:
  """A kernel of He's initialisation, for what follows a ReLU."""
  spread = np.sqrt(2 / (side**2 * inputs))
  return rng.normal(0, spread, (side, side, inputs, outputs))


def _carry(conv1: np.ndarray, conv2: np.ndarray, shortcut: np.ndarray) -> None:
  """Lets a block's first output channels be its input channels, blurred."""
  inputs = shortcut.shape[2]
  for kernel in (conv1, shortcut):
    kernel[..., :inputs] = 0
  same = np.arange(inputs)
  conv1[:, :, same, same] = BLUR[..., None]
  conv2[1, 1, same, same] = 1
