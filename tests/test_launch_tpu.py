"""launch/tpu_pod.sh: commands in order, and a slice that is deleted at every end."""

import signal
import tarfile

import launching
import pytest

LEVELS = "--config.encoder.levels=(2,3,4)"
TPU = "gcloud compute tpus tpu-vm"
REQUEST = "gcloud compute tpus queued-resources"
ZONE = "--zone=us-west4-a --quiet"
LIST = f"list '--format=value(name.basename())' {ZONE}"
INSTALL = (
  "rm -rf nps_jax && mkdir nps_jax && tar -xzf nps_jax.tar.gz -C nps_jax && cd nps_jax "
  "&& python3 -m pip install --quiet --user uv && python3 -m uv venv --quiet --seed "
  "--python 3.12 .venv && .venv/bin/python -m pip install --quiet '.[tpu]'"
)
SHARE = (
  "mountpoint -q /mnt/nps_jax || { sudo apt-get -qq update && sudo apt-get -qqy "
  "install nfs-common && sudo mkdir -p /mnt/nps_jax && sudo mount -t nfs -o "
  "hard,lookupcache=positive,actimeo=1 10.0.0.2:/share /mnt/nps_jax; }"
)
STOP = (
  "pid=$(cat nps_jax/train.pid); if kill -TERM $pid 2>/dev/null; then timeout 120 tail "
  "--pid=$pid -f /dev/null; fi"
)


pytestmark = pytest.mark.usefixtures("heard")


@pytest.fixture
def place(tmp_path):
  return launching.Place(tmp_path)


def settings(place, **more):
  """Those of a slice whose hosts both see the folder `share`."""
  wanted = {"NAME": "nps", "ZONE": "us-west4-a", "WORKDIR": f"{place.share}/run"}
  return wanted | more


def quoted(text):
  return "'" + text.replace("'", "'\\''") + "'"


BEFORE = ["list", "create", "scp", "install", "mark", "look", "train"]
AFTER = ["pack", "scp"]


def test_every_command_is_printed_in_order(place):
  chosen = {"NAME": "nps", "ZONE": "us-west4-a", "NFS": "10.0.0.2:/share"}
  chosen["WORKDIR"] = "/mnt/nps_jax/runs/tray"
  folder = chosen["WORKDIR"]
  train = (
    "cd nps_jax && echo $$ >train.pid && exec .venv/bin/python -m nps_jax.train "
    f"--multihost --config=configs/loco.py --workdir={folder} '{LEVELS}'"
  )
  pack = (
    f"cd {folder} && rm -rf .hosts && find . -maxdepth 1 '(' -name 'results.*' -o "
    "-name metrics.jsonl -o -name config.json -o -name 'calibration.*' ')' -print0 | "
    "tar -czf ~/results.tar.gz --null -T -"
  )
  mark = f"rm -rf {folder}/.hosts && mkdir -p {folder}/.hosts"
  look = f"touch {folder}/.hosts/$(hostname)"
  assert place.dry("tpu_pod.sh", LEVELS, settings=chosen) == [
    "git archive --format=tar.gz --output=runs/nps/nps_jax.tar.gz HEAD",
    f"{TPU} {LIST}",
    f"{TPU} create nps --accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite "
    f"{ZONE}",
    f"{TPU} scp runs/nps/nps_jax.tar.gz nps:nps_jax.tar.gz --worker=all {ZONE}",
    f"{TPU} ssh nps --worker=all {quoted('--command=' + INSTALL)} {ZONE}",
    f"{TPU} ssh nps --worker=all {quoted('--command=' + SHARE)} {ZONE}",
    f"{TPU} ssh nps --worker=0 {quoted('--command=' + mark)} {ZONE}",
    f"{TPU} ssh nps --worker=all {quoted('--command=' + look)} {ZONE}",
    f"{TPU} ssh nps --worker=all {quoted('--command=' + train)} {ZONE}",
    f"{TPU} ssh nps --worker=0 {quoted('--command=' + pack)} {ZONE}",
    f"{TPU} scp nps:results.tar.gz runs/nps/results.tar.gz --worker=0 {ZONE}",
    "tar -xzf runs/nps/results.tar.gz -C runs/nps",
    f"{TPU} delete nps {ZONE}",
  ]


def test_the_settings_reach_the_commands(place):
  chosen = settings(place, PROJECT="p-1", TYPE="v4-32", VERSION="tpu-ubuntu2204-base")
  chosen |= {"SPOT": "1", "PYTHON": "python3.11", "OUT": "/o", "MOUNT": "/m"}
  chosen |= {"CONFIG": "configs/synthetic.py", "NFS": "s:/e", "WORKDIR": "/m/my run"}
  lines = place.dry("tpu_pod.sh", settings=chosen)
  where = "--zone=us-west4-a --quiet --project=p-1"
  assert all(line.endswith(where) for line in lines if line.startswith("gcloud"))
  text = "\n".join(lines)
  assert (
    f"create nps --accelerator-type=v4-32 --version=tpu-ubuntu2204-base --spot {where}"
    in text
  )
  assert "&& python3.11 -m venv .venv && .venv/bin/python -m pip" in text
  assert " uv " not in text
  assert "actimeo=1 s:/e /m; }" in text
  assert lines[-2] == "tar -xzf /o/results.tar.gz -C /o"
  remote = launching.words(lines)[8][7].removeprefix("--command=")
  assert launching.words([remote])[0][-2:] == [
    "--config=configs/synthetic.py",
    "--workdir=/m/my run",
  ]


def test_a_queued_slice_is_asked_for_awaited_and_deleted(place):
  lines = place.dry("tpu_pod.sh", settings=settings(place, QUEUE="1"))
  assert lines[1:5] == [
    f"{TPU} {LIST}",
    f"{REQUEST} {LIST}",
    f"{REQUEST} create nps --node-id=nps --accelerator-type=v5litepod-16 "
    f"--runtime-version=v2-alpha-tpuv5-lite {ZONE}",
    f"{REQUEST} describe nps '--format=value(state.state)' {ZONE}",
  ]
  assert lines[-1] == f"{REQUEST} delete nps --force {ZONE}"


def test_a_slice_that_is_kept_or_used_again_is_not_deleted(place):
  whole = place.dry("tpu_pod.sh", settings=settings(place, KEEP="0"))
  assert place.dry("tpu_pod.sh", settings=settings(place, KEEP="1")) == whole[:-1]
  again = place.dry("tpu_pod.sh", settings=settings(place, REUSE="1"))
  assert again == [whole[0], *whole[3:-1]]


def test_the_run_does_what_was_printed(place):
  (place.repository / "secret.txt").write_text("not for git")
  chosen = settings(place, WORKDIR=f"{place.share}/my run")
  words = (LEVELS, "--config.data.root=/a 'b' $c")
  lines = launching.words(place.dry("tpu_pod.sh", *words, settings=chosen))
  code, _, err = place.run("tpu_pod.sh", *words, settings=chosen)
  assert (code, err) == (0, "")
  assert place.calls("gcloud") == [line for line in lines if line[0] == "gcloud"]
  flags = ["--multihost", "--config=configs/loco.py", f"--workdir={place.share}/my run"]
  train = ["python", "-m", "nps_jax.train", *flags, *words]
  assert [call for call in place.calls("python") if call[2] != "pip"] == [train] * 2
  install = ["python", "-m", "pip", "install", "--quiet", ".[tpu]"]
  assert place.calls("python").count(install) == 2

  out = place.repository / "runs" / "nps"
  with tarfile.open(out / "nps_jax.tar.gz") as archive:
    names = {each.name for each in archive if each.isfile()}
  assert {"launch/tpu_pod.sh", "configs/loco.py", "pyproject.toml"} <= names
  assert "secret.txt" not in names
  for name in ("config.json", "metrics.jsonl", "calibration.npz", "results.json"):
    assert (out / name).read_text() == f"{name}\n"
  assert not (out / "checkpoints").exists()
  assert not (place.share / "my run" / ".hosts").exists()


@pytest.mark.parametrize("code", [3, 75])
def test_a_failed_run_is_fetched_deleted_and_reported(place, code):
  found, _, _ = place.run("tpu_pod.sh", settings=settings(place, CODE=str(code)))
  assert found == code
  assert place.steps() == [*BEFORE, "stop", *AFTER, "delete"]
  assert (place.repository / "runs/nps/results.json").exists()


def test_a_failed_run_keeps_a_slice_that_is_to_be_kept(place):
  chosen = settings(place, CODE="3", KEEP="1")
  assert place.run("tpu_pod.sh", settings=chosen)[0] == 3
  assert place.steps() == [*BEFORE, "stop", *AFTER]


@pytest.mark.parametrize(
  ("fail", "done"),
  [
    ("create", BEFORE[:2]),
    ("scp", BEFORE[:3]),
    ("pip install", BEFORE[:4]),
    ("mkdir -p", BEFORE[:5]),
  ],
)
def test_what_fails_before_the_run_ends_in_deletion(place, fail, done):
  chosen = settings(place, FAIL=fail, FAIL_CODE="9")
  assert place.run("tpu_pod.sh", settings=chosen)[0] == 9
  assert place.steps() == [*done, "delete"]


def test_hosts_without_a_common_folder_are_refused(place):
  code, _, err = place.run("tpu_pod.sh", settings=settings(place, FAIL="touch"))
  assert code == 2
  assert err == (
    f"Not all hosts may write into {place.share}/run. It must be one folder on a file "
    "system that all of them mount: set NFS, or mount it yourself.\n"
  )
  assert place.steps() == [*BEFORE[:6], "delete"]


def test_results_that_cannot_be_fetched_are_said(place):
  code, _, err = place.run("tpu_pod.sh", settings=settings(place, FAIL="find ."))
  assert code == 1
  assert err == f"The results could not be fetched. They stay in {place.share}/run.\n"
  assert place.steps() == [*BEFORE, "pack", "delete"]


@pytest.mark.parametrize(
  ("number", "code"),
  [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_an_interruption_saves_fetches_and_deletes(place, number, code):
  (place.state / "hang").touch()
  process = place.start("tpu_pod.sh", settings=settings(place))
  place.wait_for_training()
  assert launching.end(process, number)[0] == code
  assert place.steps() == [*BEFORE, "stop", *AFTER, "delete"]
  assert place.calls("gcloud")[7][7] == f"--command={STOP}"
  assert place.calls("saved") == [["saved"]] * 2
  assert place.calls()[-1][4] == "delete"
  log = place.repository / "runs/nps/tpu_pod.log"
  assert log.exists() == (number == signal.SIGHUP)


def test_an_interruption_keeps_a_slice_that_is_to_be_kept(place):
  (place.state / "hang").touch()
  process = place.start("tpu_pod.sh", settings=settings(place, KEEP="1"))
  place.wait_for_training()
  assert launching.end(process, signal.SIGTERM)[0] == 143
  assert place.steps() == [*BEFORE, "stop", *AFTER]
  assert place.calls("saved") == [["saved"]] * 2


def test_a_run_that_cannot_be_stopped_does_not_keep_the_slice(place):
  (place.state / "hang").touch()
  process = place.start("tpu_pod.sh", settings=settings(place, FAIL="kill -TERM"))
  place.wait_for_training()
  process.send_signal(signal.SIGINT)
  assert process.wait(60) == 130
  assert place.steps() == [*BEFORE, "stop", *AFTER, "delete"]
  place.end_training()
  process.communicate()


def test_an_interrupted_wait_for_a_slice_gives_it_up(place):
  (place.state / "states").write_text("WAITING_FOR_RESOURCES\n" * 1000)
  chosen = settings(place, QUEUE="1", PAUSE="1")
  process = place.start("tpu_pod.sh", settings=chosen)
  place.wait_for(lambda: "describe" in place.steps())
  assert launching.end(process, signal.SIGINT)[0] == 130
  assert set(place.steps()) == {"list", "create", "describe", "delete"}
  assert place.calls("gcloud")[-1][3:6] == ["queued-resources", "delete", "nps"]


def test_a_queued_slice_is_used_once_it_is_active(place):
  (place.state / "states").write_text("WAITING_FOR_RESOURCES PROVISIONING ACTIVE")
  assert place.run("tpu_pod.sh", settings=settings(place, QUEUE="1"))[0] == 0
  asked = ["list", "list", "create", *["describe"] * 3]
  assert place.steps() == [*asked, *BEFORE[2:], *AFTER, "delete"]


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_a_request_that_failed_is_deleted(place, state):
  (place.state / "states").write_text(f"WAITING_FOR_RESOURCES {state}")
  code, _, err = place.run("tpu_pod.sh", settings=settings(place, QUEUE="1"))
  assert (code, err) == (2, f"The request for the slice is {state}.\n")
  assert place.steps()[2:] == ["create", "describe", "describe", "delete"]


def test_a_slice_that_is_there_is_left_alone(place):
  (place.state / "slices").write_text("other\nnps\n")
  code, _, err = place.run("tpu_pod.sh", settings=settings(place))
  assert code == 2
  assert err == (
    "There is a slice or a request named nps in us-west4-a already. Choose another "
    "NAME, or set REUSE=1 to use that slice.\n"
  )
  assert place.steps() == ["list"]
  assert place.run("tpu_pod.sh", settings=settings(place, REUSE="1"))[0] == 0
  assert place.steps() == ["list", *BEFORE[2:], *AFTER]


def test_a_slice_of_a_longer_name_is_another(place):
  (place.state / "slices").write_text("nps-2\n")
  assert place.run("tpu_pod.sh", settings=settings(place))[0] == 0


def test_nothing_is_made_where_slices_cannot_be_listed(place):
  code, _, err = place.run("tpu_pod.sh", settings=settings(place, FAIL="list"))
  assert (code, err) == (
    2,
    "The slices in us-west4-a could not be listed; see above.\n",
  )
  assert place.steps() == ["list"]


def test_a_slice_that_stays_is_said_loudly(place):
  code, _, err = place.run("tpu_pod.sh", settings=settings(place, FAIL="delete"))
  assert code == 1
  assert err == (
    "nps could not be deleted AND COSTS MONEY. Delete it: gcloud compute tpus tpu-vm "
    f"delete nps {ZONE}\n"
  )
  assert place.steps()[-6:] == ["delete", "list"] * 3


def test_a_deletion_that_failed_is_over_once_the_slice_is_gone(place):
  chosen = settings(place, FAIL="create", FAIL_CODE="4")
  place.command("gcloud", launching.gcloud(gone=True))
  code, _, err = place.run("tpu_pod.sh", settings=chosen)
  assert (code, err) == (4, "")
  assert place.steps() == ["list", "create", "delete", "list"]


def test_only_what_is_committed_is_sent(place):
  (place.repository / "configs" / "a.py").write_text("")
  code, _, err = place.run(
    "tpu_pod.sh", settings=settings(place, CONFIG="configs/a.py")
  )
  assert (code, err) == (
    2,
    "CONFIG is 'configs/a.py'; git does not track that file, so it would be missing on "
    "the hosts. Commit it.\n",
  )
  (place.repository / "configs" / "loco.py").write_text("")
  code, _, err = place.run("tpu_pod.sh", settings=settings(place))
  assert (code, err) == (
    2,
    "Not everything here is committed, and only what is goes to the hosts. Commit the "
    "changes, or undo them.\n",
  )
  assert place.calls() == []


@pytest.mark.parametrize(
  ("wrong", "words", "message"),
  [
    ({"NAME": ""}, (), "NAME is ''; expected a name for the slice: small letters, "),
    ({"NAME": "Nps_1"}, (), "NAME is 'Nps_1'; expected a name for the slice"),
    ({"ZONE": ""}, (), "ZONE is ''; expected a zone with TPUs, such as us-west4-a."),
    ({"WORKDIR": ""}, (), "WORKDIR is ''; expected the full path of a folder that all"),
    ({"WORKDIR": "runs/x"}, (), "WORKDIR is 'runs/x'; expected the full path of a"),
    ({"WORKDIR": "gs://b/x"}, (), "WORKDIR is 'gs://b/x'; buckets do not work yet."),
    ({"NFS": "10.0.0.2"}, (), "NFS is '10.0.0.2'; expected SERVER:/EXPORT, such as"),
    ({"NFS": "s:/e", "WORKDIR": "/x"}, (), "is not on the share that NFS names"),
    ({"MOUNT": "mnt"}, (), "MOUNT is 'mnt'; expected a full path, such as /mnt/nps_"),
    ({"KEEP": "yes"}, (), "KEEP is 'yes'; expected 1 or 0."),
    ({"QUEUE": "on"}, (), "QUEUE is 'on'; expected 1 or 0."),
    ({"PAUSE": "1m"}, (), "PAUSE is '1m'; expected whole seconds from 0 to 99999."),
    ({"GRACE": "-1"}, (), "GRACE is '-1'; expected whole seconds from 0 to 99999."),
    ({"CONFIG": "no.py"}, (), "CONFIG is 'no.py'; there is no such file in "),
    ({}, ("--workdir=/x",), "--workdir cannot be given to this script: its settings"),
    ({}, ("--config=a.py",), "--config cannot be given to this script"),
    ({}, ("--multihost",), "--multihost cannot be given to this script"),
  ],
)
def test_wrong_settings_of_a_slice_are_refused(place, wrong, words, message):
  for dry in ((), ("--dry-run",)):
    code, out, err = place.run(
      "tpu_pod.sh", *dry, *words, settings=settings(place) | wrong
    )
    assert (code, out, place.calls()) == (2, "", [])
    assert message in err
