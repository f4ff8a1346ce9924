"""CLIP: prompts or images -> vectors; from a folder, the hub's cache or the hub."""

from collections.abc import Iterable, Sequence
import contextlib
import logging
import pathlib
from typing import Any

from flax import serialization
from flax import traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, UInt8
import numpy as np
import safetensors

from nps_jax.pretrained import hub

MODEL_FILES = (  # that CLIP's text side needs, with their alternatives
  ("config.json",),
  ("vocab.json",),
  ("merges.txt",),
  ("flax_model.msgpack", "model.safetensors"),
)
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training images, 0..1
SPREAD = (0.26862954, 0.26130258, 0.27577711)
# Our layout -> torch's; its kernels are also transposed.
TORCH_NAMES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


def stamp(model: str) -> str:
  """The model's name; for a folder its place and the state of its weights."""
  folder = pathlib.Path(model).expanduser()
  if not folder.is_dir():
    return model
  files = [folder / name for name in MODEL_FILES[-1] if (folder / name).exists()]
  times = [str(file.stat().st_mtime_ns) for file in files]
  return " ".join([str(folder.resolve()), *times])


def embed(folder: pathlib.Path, prompts: Sequence[str]) -> Float32[np.ndarray, "p t"]:
  """The text model's projected vector of each prompt; full float32 on any device."""
  import transformers  # noqa: PLC0415  # seconds to import, and rarely needed

  tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)
  config = transformers.CLIPTextConfig.from_pretrained(folder, local_files_only=True)
  with _without_notice():
    network = transformers.FlaxCLIPTextModelWithProjection(config, _do_init=False)
  params = weights(folder, network.params_shape_tree)
  tokens = tokenizer(list(prompts), padding=True, return_tensors="np")
  most = config.max_position_embeddings
  if tokens["input_ids"].shape[1] > most:
    longest = max(prompts, key=len)
    raise ValueError(
      f"A prompt takes {tokens['input_ids'].shape[1]} tokens; the model in {folder} "
      f"reads {most}. Shorten config.context.templates; the longest is {longest!r}."
    )
  with jax.default_matmul_precision("highest"):
    output = jax.jit(lambda tokens, params: network(**tokens, params=params))(
      dict(tokens), params
    )
  return np.asarray(output.text_embeds, np.float32)


def image_size(folder: pathlib.Path) -> int:
  """The side in pixels of the images that the model reads."""
  import transformers  # noqa: PLC0415

  config = transformers.CLIPVisionConfig.from_pretrained(folder, local_files_only=True)
  return config.image_size


def embed_images(
  folder: pathlib.Path, batches: Iterable[UInt8[np.ndarray, "b h w 3"]]
) -> Float32[np.ndarray, "n t"]:
  """The vision model's projected vector of each image of side `image_size`."""
  import transformers  # noqa: PLC0415

  config = transformers.CLIPConfig.from_pretrained(folder, local_files_only=True)
  with _without_notice():
    network = transformers.FlaxCLIPVisionModel(config.vision_config, _do_init=False)
  width = config.vision_config.hidden_size
  projection = jax.ShapeDtypeStruct((width, config.projection_dim), jnp.float32)
  shapes = {"visual_projection": {"kernel": projection}}
  params = weights(folder, {**network.params_shape_tree, **shapes})

  @jax.jit
  def embed(params: Any, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b t"]:
    mean = jnp.array(MEAN)[None, None, None, :]
    spread = jnp.array(SPREAD)[None, None, None, :]
    pixels = (images / 255 - mean) / spread
    output = network(
      pixels.transpose(0, 3, 1, 2), params={"vision_model": params["vision_model"]}
    )
    kernel = params["visual_projection"]["kernel"]
    return jnp.einsum("bd,dt->bt", output.pooler_output, kernel)

  with jax.default_matmul_precision("highest"):
    parts = [np.asarray(embed(params, batch), np.float32) for batch in batches]
  return np.concatenate(parts)


def weights(folder: pathlib.Path, shapes: Any) -> Any:
  """The weights that the shapes name, float32, from either kind of file; no others.

  Strict, where transformers would fill a gap with random values and a log line.
  """
  path = next(file for name in MODEL_FILES[-1] if (file := folder / name).exists())
  wanted = {
    target: leaf.shape for target, leaf in traverse_util.flatten_dict(shapes).items()
  }
  try:
    tensors = _read_tensors(path, wanted)
  except (ValueError, safetensors.SafetensorError) as error:
    raise ValueError(
      f"{path} is cut short or damaged ({error}). Copy or download it again."
    ) from error
  for target, shape in wanted.items():
    if target not in tensors or tensors[target].shape != shape:
      got = tensors[target].shape if target in tensors else "missing"
      raise ValueError(
        f"{path} does not fit its config.json: {'/'.join(target)} should be {shape} "
        f"and is {got}. config.context.model must be a CLIP with a text projection."
      )
  return traverse_util.unflatten_dict(
    {target: np.asarray(tensors[target], np.float32) for target in wanted}
  )


def _read_tensors(
  path: pathlib.Path, wanted: Iterable[tuple[str, ...]]
) -> dict[Any, Any]:
  """What the file holds, by the names that Flax's CLIP has for it."""
  if path.suffix == ".msgpack":
    return traverse_util.flatten_dict(serialization.msgpack_restore(path.read_bytes()))
  tensors = {}
  with safetensors.safe_open(path, framework="flax") as file:
    names = set(file.keys())
    for target in wanted:
      name = ".".join((*target[:-1], TORCH_NAMES.get(target[-1], target[-1])))
      if name in names:
        tensor = file.get_tensor(name)
        tensors[target] = _turned(tensor) if target[-1] == "kernel" else tensor
  return tensors


def _turned(kernel: Any) -> Any:
  """Torch's kernel in our layout: out first becomes out last, in just before it."""
  return kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T


@contextlib.contextmanager
def _without_notice():
  """Keeps back the one notice that Flax models leave transformers in version 5."""
  log = logging.getLogger("transformers.modeling_flax_utils")

  def wanted(record: logging.LogRecord) -> bool:
    return "JAX classes are deprecated" not in record.getMessage()

  log.addFilter(wanted)
  try:
    yield
  finally:
    log.removeFilter(wanted)


def find_model(model: str) -> pathlib.Path:
  """The folder of the model's files: local, in the hub's cache, or just downloaded."""
  folder = pathlib.Path(model).expanduser()
  wanted = ", ".join(" or ".join(names) for names in MODEL_FILES)
  if folder.is_dir():
    for names in MODEL_FILES:
      if not any((folder / name).is_file() for name in names):
        raise FileNotFoundError(
          f"config.context.model is the folder {folder}, which holds no "
          f"{' or '.join(names)}; expected {wanted}."
        )
    return folder
  for names in MODEL_FILES:
    if not (path := hub.fetch(model, *names)):
      raise FileNotFoundError(
        f"config.context.model is {model!r}: no folder here, and {' or '.join(names)} "
        "is not in the hub's cache and could not be downloaded. Either set "
        f"config.context.model to a folder with {wanted}; or, where the hub can be "
        "reached, run `python -m nps_jax.models.context --categories=... "
        "--out=vectors.npz`, bring that file, and set config.context.source to "
        "'vectors' and config.context.vectors to its path; or set "
        "config.context.source to 'learned', which needs no file."
      )
  return path.parent
