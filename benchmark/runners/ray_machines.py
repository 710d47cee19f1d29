"""Resources of the machines of a Ray cluster, and a check that each of them can compute the plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ... import __version__
from ..core.text import count
from ..errors import InvalidConfigurationError, PrivbenchError
from ..isolation.declared import description_of
from ..pipeline.cell import Choice
from ..pipeline.plan import Stage
from ..registry import find
from ..store.store import Store, open_store
from .ray_cluster import Cluster, ClusterError
from .ray_tasks import privbench_environment, set_environment, version_mismatch
from .worker import WorkerConfig

#: Seconds that machines have to answer the check.
_ANSWER_SECONDS = 300.0
#: A key that no stage has.
_NO_KEY = "0" * 64


@dataclass(frozen=True)
class Resources:
    """Resources of a cluster that a stage can use.

    Args:
        device: where a stage computes.
        threads: CPU threads of each stage.
        memory: bytes of memory of the largest machine.
        machines: number of machines that can compute.
    """

    device: torch.device
    threads: int
    memory: int
    machines: int

    @property
    def summary(self) -> str:
        """Summary for the user."""
        machines, threads = count(self.machines, "machine"), count(self.threads, "CPU thread")
        return f"Ray cluster of {machines}; {threads} per stage, on {self.device.type}"


def cluster_resources(ray: Any, device: str, cluster: Cluster) -> Resources:
    """The resources of a cluster.

    Raises:
        ClusterError: the cluster has no CPUs.
        InvalidConfigurationError: it has no such device, or no machine with so many threads.
    """
    machines = [node["Resources"] for node in _computing_nodes(ray)]
    if not machines:
        raise ClusterError("expected a Ray cluster with CPUs, got none; start machines with `ray start --address`")
    if device not in ("auto", "cpu", "cuda"):
        raise InvalidConfigurationError(f"expected device to be auto, cpu or cuda on a Ray cluster, got {device!r}")
    with_gpu = [resources for resources in machines if resources.get("GPU", 0) >= 1]
    if device == "cuda" and not with_gpu:
        raise InvalidConfigurationError("expected device 'cuda' to exist on the Ray cluster, got none; use auto")
    cuda = bool(with_gpu) and device != "cpu"
    usable = with_gpu if cuda else machines
    fewest = int(min(resources["CPU"] for resources in usable))
    most = int(max(resources["CPU"] for resources in usable))
    stages = max(cluster.jobs, int(min(resources["GPU"] for resources in usable)) if cuda else 1)
    threads = cluster.threads or max(1, fewest // stages)
    if threads > most:
        raise InvalidConfigurationError(
            f"expected --threads to be at most {most}, the CPUs of the largest machine of the cluster, got {threads}"
        )
    memory = int(max(resources.get("memory", 0) for resources in usable))
    return Resources(torch.device("cuda", 0) if cuda else torch.device("cpu"), threads, memory, len(usable))


def _computing_nodes(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]


def check_machines(ray: Any, todo: Sequence[Stage], store: Store, config: WorkerConfig) -> None:
    """Refuse a cluster with a machine that cannot access the store, the data or the packages.

    Raises:
        ClusterError: names the machine and the problem.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    datasets = {stage.cell.dataset.name: stage.cell.dataset for stage in todo}
    choices = [choice for stage in todo for choice in (stage.cell.defense, stage.cell.attack, *stage.cell.evaluators)]
    requirements = (
        config,
        __version__,
        privbench_environment(),
        creation_time(store),
        [(dataset, dataset.component.fingerprint(config.data_root)) for dataset in datasets.values()],
        list({type(choice.component): choice.component for choice in choices}.values()),
    )
    names = {}
    for node in _computing_nodes(ray):
        on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(find_problem).options(num_cpus=0, max_retries=-1, scheduling_strategy=on_node)
        names[task.remote(*requirements)] = f"machine {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
    answered, _ = ray.wait(list(names), num_returns=len(names), timeout=_ANSWER_SECONDS)
    for reference, name in names.items():
        if reference not in answered:
            raise ClusterError(f"{name} of the Ray cluster does not answer; check `ray status` and remove the machine")
        try:
            problem = ray.get(reference)
        except ray.exceptions.RayError as cause:
            problem = f"{last_line(cause)}; install privbench and the same plugins on every machine"
        if problem:
            raise ClusterError(f"{name} of the Ray cluster cannot compute: {problem}")


def find_problem(
    config: WorkerConfig,
    version: str,
    environment: Mapping[str, str],
    created: int | None,
    datasets: Sequence[tuple[Choice, str]],
    components: Sequence[object],
) -> str | None:
    """Reason why this machine cannot compute the stages, in one phrase; `None` if it can.

    Args:
        config: store and data folder.
        version: of privbench.
        environment: variables that this machine takes over.
        created: creation time of the store, which tells it from another folder of the same name.
        datasets: data sets, each with the fingerprint of its files.
        components: unpickling them fails if this machine lacks their package; of an attack in a process of its own,
            the name is looked up instead.
    """
    mismatch = version_mismatch(version)
    if mismatch:
        return mismatch
    set_environment(environment)
    try:
        for described in filter(None, map(description_of, components)):
            find("attack", described.name)
        store = open_store(config.store)
        if created is not None and creation_time(store) != created:
            return (
                f"the folder {store.root} is not the store that the command uses under this name; set --store to a "
                "folder that all machines share, or to a URL"
            )
        with store.lock("scores", _NO_KEY):
            store.find("scores", _NO_KEY)
        for dataset, fingerprint in datasets:
            # A data set with published checksums has no fingerprint, and checking its files is fast.
            for problem in () if fingerprint else dataset.component.check(config.data_root):
                return str(problem)
            if dataset.component.fingerprint(config.data_root) != fingerprint:
                return f"the files of {dataset.name} in {config.data_root} differ from those on the command's machine"
    except PrivbenchError as cause:
        return str(cause)
    return None


def creation_time(store: Store) -> int | None:
    """Creation time of a store in nanoseconds; creates the store if necessary. `None` if it is at a URL."""
    if store.address.remote is not None:
        return None
    with store.lock("scores", _NO_KEY):
        return (store.root / "format.json").stat().st_mtime_ns


def last_line(cause: BaseException) -> str:
    """The last line of an error message, without its full stop."""
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(cause).__name__
