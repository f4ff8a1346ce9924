"""CPU, eight fake devices, annotations checked at run time."""

import os
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

from absl import flags
import jaxtyping

jaxtyping.install_import_hook("nps_jax", "beartype.beartype")
flags.FLAGS.mark_as_parsed()

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# Several tests compile the same training step.
jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp(prefix="nps_jax-"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
