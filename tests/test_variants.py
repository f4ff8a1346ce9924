"""Named changes to a config: file, names, fields; and those of configs/ablation.py."""

import re

import pytest
import runs

from nps_jax import config as settings
from nps_jax.study import runner
from nps_jax.study import variants

ABLATION = runs.CONFIGS / "ablation.py"
OTHER = ("ablation", "pretrain")  # no config of a training of the method
CONFIGS = sorted({path.stem for path in runs.CONFIGS.glob("*.py")}.difference(OTHER))


def base(name):
  return variants.read_module(runs.CONFIGS / f"{name}.py").get_config()


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("x = 3", r"has no get_variants\(\); see configs/ablation\.py"),
    ("def get_variants():\n  return {}", r"returns no variant\."),
    ("def get_variants():\n  return ['a']", "must return a dict of names"),
    ("def get_variants():\n  return {'a': 3}", "each with a dict of fields"),
    ("def get_variants():\n  return {'a/b': {}}", "names a variant 'a/b'; a name is a"),
    (
      "def get_variants():\n  return {'patch-memory': {}}",
      "names a variant 'patch-memory'; .* none of data, patch-memory, pooled-gaussian",
    ),
    ("def get_variants():\n  return {'..': {}}", r"names a variant '\.\.'"),
    ("def get_variants():\n  return {'': {}}", "names a variant ''"),
    ("def get_variants():\n  return {'a,b': {}}", "names a variant 'a,b'"),
    ("def get_variants():\n  return {3: {}}", "names a variant 3"),
    ("def get_variants():\n  return {'data': {}}", "names a variant 'data'"),
  ],
)
def test_files_without_usable_variants_are_refused(tmp_path, text, message):
  path = tmp_path / "held.py"
  path.write_text(text)
  with pytest.raises(ValueError, match=message):
    variants.read(path)


def test_a_file_of_another_sort_is_refused(tmp_path):
  (tmp_path / "held.txt").write_text("")
  with pytest.raises(ValueError, match=r"is no Python file; its name must end in \.py"):
    variants.read(tmp_path / "held.txt")
  with pytest.raises(FileNotFoundError, match=r"There is no file .*; give --variants="):
    variants.read(tmp_path / "lost.py")


def test_chosen_names_come_in_the_file_s_order_and_once():
  assert variants.choose(("a", "b", "c"), "c, a,c") == ("a", "c")
  with pytest.raises(ValueError, match=r"^--only is 'a,dd'; there are a, bb, c\.$"):
    variants.choose(("a", "bb", "c"), "a,dd")
  with pytest.raises(ValueError, match=r"^--only is ''; there are a, bb\.$"):
    variants.choose(("a", "bb"), "")


def test_a_variant_changes_its_fields_and_nothing_else():
  config = settings.defaults()
  fields = {"codebook.size": 64, "scoring.smoothing": 0, "encoder.levels": (3,)}
  found = variants.changed(config, "v", fields)
  assert config == settings.defaults() and found.is_locked and found.codebook.is_locked
  before, after = settings.leaves(config), settings.leaves(found)
  assert {name: after[name] for name in after if after[name] != before[name]} == fields
  assert type(found.scoring.smoothing) is float


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("codebook.sise", 3, "sets 'codebook.sise', which is no field of the config. Did "),
    ("codebook.sise", 3, "you mean 'codebook.size'?"),
    ("codebook", {}, "sets 'codebook', which is no field"),
    ("seed.x", 3, "sets 'seed.x', which is no field"),
    ("codebook.size", "64", "codebook.size to '64'; expected a value like 512, of typ"),
    ("codebook.size", 6.4, "expected a value like 512, of type int."),
    ("codebook.size", True, "codebook.size to True; expected a value like 512"),
    ("codebook.enabled", 1, "expected a value like True, of type bool."),
    ("encoder.levels", [3], "expected a value like (2, 3, 4), of type tuple."),
    ("codebook.size", 0, "Variant 'v': config.codebook.size is 0; expected 1 or more."),
    ("loss.distance", "l1", "Variant 'v': config.loss.distance is 'l1'; expected one"),
    *(
      (field, value, f"Variant 'v' sets {field}; that is one for all variants")
      for field, value in (
        *(("seed", 1), ("data.category", "a"), ("data.root", "x")),
        ("data.synthetic", True),
      )
    ),
  ],
)
def test_wrong_fields_are_refused_by_the_variant_s_name(field, value, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    variants.changed(settings.defaults(), "v", {field: value})


@pytest.mark.parametrize("name", CONFIGS)
def test_every_variant_of_the_ablation_fits_every_config(name):
  known = variants.read(ABLATION)
  assert len(known) >= 20
  for variant, fields in known.items():
    found = settings.leaves(variants.changed(base(name), variant, fields))
    assert {field: found[field] for field in fields} == dict(fields)


def test_the_ablation_repeats_only_what_stands_in_its_group():
  """With the paper's config: every other variant is new."""
  config, seen, same = base("loco"), {}, {}
  for variant, fields in variants.read(ABLATION).items():
    text = repr(variants.changed(config, variant, fields))
    if text in seen:
      same[variant] = seen[text]
    seen.setdefault(text, variant)
  assert same == {"+codebook-512": "+codebook", "distance-cosine": "reconstruction"}
  paper = variants.changed(config, "paper", variants.read(ABLATION)["paper"])
  config.variant = "paper"
  settings.apply_variant(config)
  assert paper == config


def test_the_ablation_adds_priors_to_the_decoder_alone():
  config, known = base("loco"), variants.read(ABLATION)

  def priors(name):
    found = variants.changed(config, name, known[name])
    rest = (found.structural.enabled, found.codebook.memory, found.train.edits)
    assert rest == (False, 0, 0) and found.scoring.edits == 0
    assert (found.scoring.maps, found.scoring.pooled) == (("reconstruction",), ())
    return found.context.source, found.codebook.enabled

  assert priors("reconstruction") == ("none", False)
  assert priors("+context") == ("clip", False)
  assert priors("+codebook") == ("none", True)
  assert priors("+both") == ("clip", True)


def test_what_the_data_decide_makes_no_other_run():
  stored = settings.leaves(settings.defaults()) | {
    "image_size": (192, 384),
    "data.bits": 12,
  }
  left = stored | {"image_size": "auto", "data.bits": 0}
  assert runner._differences(stored, left) == []
  other = stored | {"image_size": 256, "data.bits": 10}
  assert len(runner._differences(stored, other)) == 2
