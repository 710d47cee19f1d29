"""The files in docs/cluster: the scripts parse, the YAML has fields that KubeRay knows, the commands run."""

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from privbench.benchmark.cli.main import app

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "cluster"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
bash = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


def known_options() -> set[str]:
    run = typer.main.get_command(app).commands["run"]
    return {option for parameter in run.params for option in parameter.opts}


def commands(text: str) -> list[list[str]]:
    """The words of every `privbench run` in a file."""
    found = re.findall(r"privbench run [^\n&#]*", text)
    return [line.replace('"', "").split() for line in found]


@bash
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(path: Path) -> None:
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False).stderr == ""


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_they_use_options_that_exist(path: Path) -> None:
    lines = commands(path.read_text())
    assert lines
    for words in lines:
        assert {word for word in words if word.startswith("--")} <= known_options()
        assert words[words.index("--runner") + 1] == "ray"


def test_the_page_names_every_file() -> None:
    page = (FOLDER.parent / "cluster.md").read_text()
    for path in FOLDER.iterdir():
        assert f"(cluster/{path.name})" in page


def test_the_job_for_kubernetes_has_the_fields_of_kuberay() -> None:
    yaml = pytest.importorskip("yaml", reason="reads YAML")
    (job,) = yaml.safe_load_all((FOLDER / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    known = {"entrypoint", "entrypointNumCpus", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit"}
    assert job["spec"].keys() == known | {"rayClusterSpec"}
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster.keys() == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert cluster["authOptions"] == {"mode": "token"}
    assert tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52)
    (workers,) = cluster["workerGroupSpecs"]
    assert workers.keys() == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    for group in (cluster["headGroupSpec"], workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert container["resources"]["limits"] == container["resources"]["requests"]
        folders = [mount["mountPath"] for mount in container["volumeMounts"]]
        for variable in container["env"]:
            assert variable["name"].startswith(("PRIVBENCH_", "RAY_"))
            assert not variable["value"].startswith("/") or variable["value"].startswith(tuple(folders))
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


PROGRAM = """
import sys, time
try:
    print("started", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("stopped", flush=True)
    time.sleep(1)
    sys.exit(130)
"""


@bash
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_script_for_slurm_passes_ctrl_c_on(tmp_path: Path, number: int, enable_ctrl_c) -> None:
    """Run the script with programs in place of SLURM and Ray that do nothing."""
    tools = tmp_path / "bin"
    tools.mkdir()
    programs = {
        "srun": '#!/bin/bash\ncase "$*" in *hostname*) echo 127.0.0.1;; *) exec sleep 60;; esac\n',
        "scontrol": "#!/bin/bash\necho first; echo second\n",
        "ray": "#!/bin/bash\nexit 0\n",
        "privbench": f"#!{sys.executable}\n{PROGRAM}",
        "activate": "",
    }
    for name, text in programs.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "VENV": str(tools),
        "SCRATCH": str(tmp_path),
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NODELIST": "first,second",
        "SLURM_CPUS_PER_TASK": "2",
    }
    process = subprocess.Popen(
        ["bash", str(FOLDER / "slurm.sh"), "matrix.toml"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Jobs start like this. Processes in the background of a shell ignore Ctrl-C, and bash cannot change that.
        preexec_fn=enable_ctrl_c,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "started\n"
        process.send_signal(number)
        assert process.stdout.readline() == "stopped\n"
        assert process.wait(20) == 130
    finally:
        process.stdout.close()
        subprocess.run(["pkill", "-KILL", "--session", str(process.pid)], check=False)
        process.wait(5)


def stop(node: subprocess.Popen[bytes]) -> None:
    """End a node and all processes that it started."""
    node.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        node.wait(60)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)
    node.wait(10)


@pytest.mark.slow
@bash
@pytest.mark.filterwarnings("ignore")
def test_two_nodes_started_by_hand_compute_a_cell(tmp_path: Path) -> None:
    """Run `ray start --head`, `ray start --address` and a cell on the two nodes, all on this machine."""
    pytest.importorskip("ray", reason="the extra ray")
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    nodes: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> str:
        """Start a node and return its output."""
        path = tmp_path / f"node{len(nodes)}"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--block", *options]
        with path.open("w") as log:
            nodes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))
        until = time.monotonic() + 120
        while "Ray runtime started" not in path.read_text():
            assert nodes[-1].poll() is None and time.monotonic() < until, path.read_text()
            time.sleep(0.5)
        time.sleep(1)
        return path.read_text()

    try:
        output = start("--head", f"--port={port}", "--include-dashboard=false")
        address = re.search(r"ray start --address='([^']+)'", output)[1]
        start(f"--address={address}")
        words = ["--defense", "none", "--attack", "gmi", "--budget", "smoke", "--evaluator", "accuracy"]
        words += ["--runner", "ray", "--address", address, "--threads", "1", "--device", "cpu"]
        done = subprocess.run(
            [sys.executable, "-m", "privbench", "run", *words],
            env={**environment, "PRIVBENCH_STORE": str(tmp_path / "s"), "PRIVBENCH_RESULTS": str(tmp_path / "r")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Ray cluster of 2 machines; 1 CPU thread per stage, on cpu" in done.stderr
        assert "4 of 4 stages computed" in done.stderr
    finally:
        for node in reversed(nodes):
            stop(node)
