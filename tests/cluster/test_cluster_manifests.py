"""docs/cluster: what can be said about these files without a cluster."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "cluster"

# The fields of KubeRay 1.5's custom resources.
RAYJOB = {
    *("entrypoint", "runtimeEnvYAML", "jobId", "submissionMode", "entrypointNumCpus", "metadata"),
    *("entrypointNumGpus", "entrypointResources", "ttlSecondsAfterFinished", "clusterSelector"),
    *("shutdownAfterJobFinishes", "backoffLimit", "activeDeadlineSeconds", "suspend", "managedBy"),
    *("submitterPodTemplate", "submitterConfig", "deletionStrategy", "rayClusterSpec"),
}
RAYCLUSTER = {
    *("authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions"),
    *("headGroupSpec", "workerGroupSpecs", "rayVersion", "suspend", "managedBy"),
    *("headServiceAnnotations", "upgradeStrategy"),
}
HEAD = {
    *("template", "rayStartParams", "headService", "serviceType", "enableIngress", "resources"),
    "labels",
}
WORKERS = {
    *("template", "rayStartParams", "groupName", "replicas", "minReplicas", "maxReplicas"),
    *("idleTimeoutSeconds", "numOfHosts", "scaleStrategy", "suspend", "resources", "labels"),
}


def loaded(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def test_the_rayjob_has_the_custom_resources_fields() -> None:
    job = loaded("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec.keys() <= RAYJOB
    cluster = spec["rayClusterSpec"]
    assert cluster.keys() <= RAYCLUSTER
    assert cluster["headGroupSpec"].keys() <= HEAD
    assert cluster["authOptions"] == {"mode": "token"}
    for group in cluster["workerGroupSpecs"]:
        assert group.keys() <= WORKERS
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert all(
        isinstance(value, str) for value in cluster["headGroupSpec"]["rayStartParams"].values()
    )
    # The version that is tested here, and that knows tokens.
    pinned = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert cluster["rayVersion"] == pinned[1]


def test_the_rayjobs_pods_are_pods() -> None:
    import kubernetes_validate

    cluster = loaded("rayjob.yaml")["spec"]["rayClusterSpec"]
    templates = [cluster["headGroupSpec"]["template"]]
    templates += [group["template"] for group in cluster["workerGroupSpecs"]]
    for template in templates:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template}
        kubernetes_validate.validate(pod, "1.31", strict=True)
        pod["spec"] = {**pod["spec"], "containres": []}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(pod, "1.31", strict=True)


def options_of(command: str) -> set[str]:
    return set(re.findall(r"(--[a-z-]+)", command))


def test_commands_in_the_files_are_commands_of_the_doors() -> None:
    known = options_of((ROOT / "run_sweep.py").read_text())
    entrypoint = loaded("rayjob.yaml")["spec"]["entrypoint"]
    assert options_of(entrypoint) <= known
    assert options_of((FOLDER / "slurm.sh").read_text().rpartition('"$python"')[2]) <= known
    space = re.search(r"search_spaces/\S+", entrypoint)
    assert space is not None
    assert (ROOT / space[0]).is_file()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_ray_up_takes_its_file() -> None:
    """Ray's own schema, and the preparation that `ray up` itself begins with."""
    import ray
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = loaded("ray-up.yaml")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
    assert config.keys() <= schema["properties"].keys()
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == len(config["provider"]["worker_ips"])
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    with pytest.raises(Exception, match="nonsense"):
        validate_config({**prepared, "nonsense": 1})


def test_the_slurm_script_is_sound() -> None:
    path = FOLDER / "slurm.sh"
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True)


SRUN = """#!/usr/bin/env bash
while [[ $1 == -* ]]; do [[ $1 == -w ]] && shift; shift; done
exec "$@"
"""
RAY = """#!/usr/bin/env bash
echo "ray $*" >>"$LOG"
[[ $1 == start ]] && exec sleep 60
exit 0
"""
# The sweep does not end before its nodes have begun, as it would not in life.
PYTHON = """#!/usr/bin/env bash
for _ in {1..300}; do [[ $(grep -c "^ray start" "$LOG") -ge 3 ]] && break; sleep 0.1; done
echo "python $* $RAY_AUTH_MODE $(wc -c <"$RAY_AUTH_TOKEN_PATH")" >>"$LOG"
exit 7
"""


def test_the_slurm_script_starts_every_node_once_and_passes_the_exit_code_on(tmp_path) -> None:
    """Slurm's and Ray's commands are stood in for: what is called with what."""
    programs = {"srun": SRUN, "scontrol": "#!/bin/sh\nprintf 'one\\ntwo\\nthree\\n'\n"}
    programs |= {".venv/bin/ray": RAY, ".venv/bin/python": PYTHON}
    for name, text in programs.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    log = tmp_path / "log"
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LOG": str(log),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "12",
        "SLURM_JOB_NODELIST": "x",
        "SLURM_CPUS_PER_TASK": "2",
    }
    done = subprocess.run(
        [FOLDER / "slurm.sh", "space.yaml", "--yes"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (7, "")
    lines = log.read_text().splitlines()
    starts = [line for line in lines if line.startswith("ray start")]
    assert sum("--head --port=20012" in line for line in starts) == 1
    assert sum("--address=one:20012" in line for line in starts) == 2
    (driver,) = [line for line in lines if line.startswith("python")]
    assert f"space.yaml --yes --address one:20012 --results {tmp_path}/results token 64" in driver
    assert not list(tmp_path.glob(".ray-token*"))
