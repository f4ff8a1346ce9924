"""Tensors from safetensors files; nothing is unpickled."""

from collections.abc import Callable
import pathlib

import jax.numpy as jnp
import numpy as np
import safetensors

from nps_jax.data import listing

DTYPES = {"F16": np.float16, "BF16": jnp.bfloat16, "F32": np.float32, "F64": np.float64}
PICKLES = (".pth", ".pt", ".bin", ".pkl", ".ckpt", ".tar")


def read(path: pathlib.Path) -> bytes:
  """The file's bytes; refuses what only unpickling could open."""
  if not path.is_file():
    folder = path if path.is_dir() else path.parent
    names = sorted(file.name for file in folder.glob("*.safetensors"))
    raise FileNotFoundError(
      f"config.encoder.weights is {str(path)!r}, which is no file; expected a "
      ".safetensors file, 'hub', 'builtin' or 'random'. In "
      f"{folder} there is: {listing.some(names)}."
    )
  content = path.read_bytes()
  zipped = content[:4] == b"PK\x03\x04"
  # A safetensors header may begin with the same bytes; its ninth is always a brace.
  pickled = content[:1] == b"\x80" and content[8:9] != b"{"
  if zipped or pickled or path.suffix in PICKLES:
    raise ValueError(
      f"{path} is a pickle, which can run code when it is opened; it is refused. "
      "Convert it where torch is installed:\n"
      "  from safetensors.torch import save_file; import torch\n"
      "  save_file({k: v.contiguous() for k, v in "
      f'torch.load("{path.name}", weights_only=True).items()}}, '
      f'"{path.stem}.safetensors")'
    )
  return content


def decode(
  content: bytes, path: pathlib.Path, ignored: Callable[[str], bool]
) -> dict[str, np.ndarray]:
  """The file's floating-point tensors by name, without those that are ignored.

  Raises:
    ValueError: the file is cut short or damaged, or needs another type.
  """
  try:
    entries = safetensors.deserialize(content)
  except safetensors.SafetensorError as error:
    raise ValueError(
      f"{path} is cut short, damaged or no safetensors file ({error}). Its size is "
      f"{len(content)} bytes; compare with the original and copy it again."
    ) from error
  tensors = {}
  for key, entry in entries:
    if ignored(key):
      continue
    if entry["dtype"] not in DTYPES:
      raise ValueError(
        f"{path}: {key} is of type {entry['dtype']}; expected one of "
        f"{', '.join(DTYPES)}."
      )
    dtype = np.dtype(DTYPES[entry["dtype"]])
    tensors[key] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
  return tensors
