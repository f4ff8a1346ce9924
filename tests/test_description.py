"""A run's settings: written once, compared ever after, and read back as they were."""

import functools
import json

from flax import traverse_util
import ml_collections
import pytest

from nps_jax import config as settings
from nps_jax import distributed
from nps_jax.runs import description
from nps_jax.runs import integrity

ENCODER = {"name": "resnet18", "file": "a.safetensors", "sha256": "0f", "deepest": 4}
FIELDS = traverse_util.flatten_dict(settings.defaults().to_dict(), sep=".")


def described(changes=(), categories=("nuts", "bag"), encoder=None):
  config = settings.defaults()
  config.update_from_flattened_dict(dict(changes))
  config = ml_collections.FrozenConfigDict(config)
  return description.Description(config, categories, 4, encoder or dict(ENCODER))


def changed(value):
  """Another value of the same type."""
  if isinstance(value, bool):
    return not value
  return value + (value[:1] if isinstance(value, tuple) else type(value)(1))


def test_a_run_is_described_once(tmp_path):
  about = described({"encoder.levels": (2, 3), "context.templates": ("a {}", "{}")})
  description.write(tmp_path, about)
  text = (tmp_path / description.CONFIG).read_text()
  assert json.loads(text)["config"]["encoder"]["levels"] == [2, 3]
  assert json.loads(text)["categories"] == ["nuts", "bag"]
  description.write(tmp_path, about)
  assert (tmp_path / description.CONFIG).read_text() == text
  assert {each.name for each in tmp_path.iterdir()} == {"config.json", "config.sha256"}


def test_a_description_survives_the_disk_with_its_tuples(tmp_path):
  about = described({"encoder.levels": (2, 3), "context.templates": ("a {}", "{}")})
  description.write(tmp_path, about)
  found = description.read(tmp_path)
  assert found == about
  assert found.config.encoder.levels == (2, 3)
  assert found.config.context.templates == ("a {}", "{}")
  assert settings.fingerprint(found.config) == settings.fingerprint(about.config)
  for name, value in FIELDS.items():
    held = traverse_util.flatten_dict(found.config.to_dict(), sep=".")[name]
    assert type(held) is type(value), name


@pytest.mark.parametrize("name", sorted(set(FIELDS) - set(description.FREE)))
def test_a_changed_field_bars_going_on_and_is_named_with_both_values(tmp_path, name):
  description.write(tmp_path, described())
  text = (tmp_path / description.CONFIG).read_text()
  old, new = FIELDS[name], changed(FIELDS[name])
  with pytest.raises(ValueError, match="holds a run with other settings") as caught:
    description.write(tmp_path, described({name: new}))
  listed = str(caught.value).splitlines()
  assert listed[1:-1] == [f"  config.{name}: {old!r} in the workdir, {new!r} asked for"]
  assert listed[-1].startswith("Use another --workdir")
  assert (tmp_path / description.CONFIG).read_text() == text


@pytest.mark.parametrize("name", description.FREE)
def test_a_free_field_may_change(tmp_path, name):
  description.write(tmp_path, described())
  text = (tmp_path / description.CONFIG).read_text()
  description.write(tmp_path, described({name: changed(FIELDS[name])}))
  assert (tmp_path / description.CONFIG).read_text() == text


def test_more_steps_extend_a_run_and_fewer_are_refused(tmp_path):
  description.write(tmp_path, described({"train.steps": 6}))
  longer = described({"train.steps": 12, "data.threads": 7})
  description.write(tmp_path, longer, longer=True)
  assert description.read(tmp_path).config.train.steps == 6
  for _ in range(2):
    description.extend(tmp_path, longer)
    assert description.read(tmp_path) == longer._replace(extended=(6,))
  description.extend(tmp_path, described({"train.steps": 20}))
  assert description.read(tmp_path).extended == (6, 12)
  for change in (description.extend, functools.partial(description.write, longer=True)):
    with pytest.raises(ValueError, match="other settings") as caught:
      change(tmp_path, described({"train.steps": 12, "seed": 3}))
    assert str(caught.value).splitlines()[1:-1] == [
      "  config.seed: 0 in the workdir, 3 asked for",
      "  config.train.steps: 20 in the workdir, 12 asked for; steps can be raised, not "
      "lowered: give 20 or more",
    ]
  with pytest.raises(ValueError, match=r"config\.seed: 0") as caught:
    description.extend(tmp_path, described({"train.steps": 30, "seed": 3}))
  assert "train.steps" not in str(caught.value)
  assert description.read(tmp_path).config.train.steps == 20


def test_other_normal_images_are_named_with_what_to_do(tmp_path):
  """The images of a folder whose held-out ones are drawn anew as it grows."""
  ids = [f"nuts/train/good/{at}" for at in range(25)]
  images = dict.fromkeys(ids, "0") | {"nuts/validation/good/v": "1"}
  description.write(tmp_path, described()._replace(images=images))
  new = dict.fromkeys(ids[23:1:-1], "0") | {ids[1]: "9", "nuts/train/good/v": "1"}
  new |= dict.fromkeys([f"nuts/train/good/new{at:02d}" for at in range(22)], "2")
  new |= {"nuts/validation/good/0": "0"}
  with pytest.raises(ValueError, match="other settings") as caught:
    description.write(tmp_path, described()._replace(images=new))
  (line,) = str(caught.value).splitlines()[1:-1]
  listed = ", ".join(f"nuts/train/good/new{at:02d}" for at in range(20))
  assert line == (
    f"  normal images: 1 of other content ({ids[1]}); 1 only in the workdir "
    f"({ids[24]}); 22 new ({listed}, ...); 2 now on the other side of training and "
    f"held out ({ids[0]}, nuts/validation/good/v). {description.RETRAIN}"
  )


def test_a_run_that_says_nothing_of_extensions_has_none(tmp_path):
  description.write(tmp_path, described())
  path = tmp_path / description.CONFIG
  content = json.loads(path.read_text())
  del content["extended"]
  integrity.write(path, json.dumps(content).encode())
  assert description.read(tmp_path) == described()


def test_every_difference_is_listed_even_beyond_the_config(tmp_path):
  description.write(tmp_path, described())
  other = described(
    {"seed": 3, "codebook.size": 64, "data.threads": 7},
    categories=("nuts",),
    encoder=ENCODER | {"sha256": "1f"},
  )
  with pytest.raises(ValueError, match=str(tmp_path)) as caught:
    description.write(tmp_path, other)
  listed = [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:-1]]
  assert listed == ["categories", "encoder", "config.codebook.size", "config.seed"]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"is not a run: it has no config\.json"):
    description.read(tmp_path)


def test_a_run_of_another_version_is_refused_not_guessed_at(tmp_path):
  description.write(tmp_path, described())
  path = tmp_path / description.CONFIG
  content = json.loads(path.read_text())
  del content["config"]["scoring"]["smoothing"]
  content["config"]["encoder"]["pooling"] = "max"
  integrity.write(path, json.dumps(content).encode())
  with pytest.raises(ValueError, match="another version") as caught:
    description.read(tmp_path)
  assert "lacks the settings ['scoring.smoothing']" in str(caught.value)
  assert "has ['encoder.pooling'] besides" in str(caught.value)


def test_damaged_settings_are_refused_by_name(tmp_path):
  description.write(tmp_path, described())
  path = tmp_path / description.CONFIG
  path.write_text(path.read_text()[:-9])
  with pytest.raises(ValueError, match=r"config\.json is damaged: .*intact copy of"):
    description.read(tmp_path)


def test_a_flip_in_the_settings_is_noticed(tmp_path):
  description.write(tmp_path, described())
  path = tmp_path / description.CONFIG
  path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
  with pytest.raises(ValueError, match=r"config\.json is damaged: its SHA-256 is not"):
    description.read(tmp_path)


def test_hosts_that_do_not_lead_describe_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(distributed, "is_lead", lambda: False)
  description.write(tmp_path, described())
  assert list(tmp_path.iterdir()) == []
