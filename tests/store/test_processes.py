"""Several processes on one store, some of them killed: no partial artifacts, each stage computed once."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from helpers.killed import ENVIRONMENT
from privbench.benchmark.store.store import Store

KEY = "ef" + "0" * 62

# Runs a stage in child processes that are killed before the n-th line of the package, for every n. There are no
# tensors, so torch is not imported.
KILLED = """
    import os, random, sys
    from pathlib import Path
    from helpers.killed import lines_of
    from privbench.benchmark.store import checkpoint
    from privbench.benchmark.store.store import Store

    root, kills = Path(sys.argv[1]), int(sys.argv[2])
    content = bytes(range(256)) * 3
    checkpoint.pack, checkpoint.unpack = lambda tensors: content, lambda data: {"0/x": data}
    package = str(Path(checkpoint.__file__).parents[1])

    def stage(store, key):
        with store.lock("target", key):
            if store.find("target", key) is None:
                checkpoint = store.checkpoint("target", key)
                found = checkpoint.load("loop")
                for step in range(found[1]["step"] if found else 0, 2):
                    checkpoint.save("loop", {"g": {"x": None}}, {"step": step + 1})
                store.write("target", key, tensors={}, info={"key": key}, files={"a": content, "b": b"b"})
                checkpoint.clear()

    total = lines_of(package, lambda: stage(Store(root / "whole"), "0" * 64))
    generator, left, unfinished = random.Random(0), 0, 0
    limits = [1 + kill * total // kills + generator.randrange(total // kills) for kill in range(kills)]
    for kill, limit in enumerate([*limits, *range(total - 40, total, 4)]):
        key = f"{kill:064x}"
        folder = root / str(kill)
        child = os.fork()
        if child == 0:
            lines_of(package, lambda: stage(Store(folder), key), limit)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status), (limit, total)
        store = Store(folder)
        for problem in store.check():
            assert (problem.reason, problem.key) == ("an interrupted process left it", key), problem
            left += 1
        found = store.find("target", key)
        unfinished += found is None
        assert found is None or found.file("a") == content
        stage(store, key)
        assert store.find("target", key).file("a") == content
        assert store.check() == []
        assert not list((folder / "quarantine").iterdir())
        assert {entry.state for entry in store.gc(None)} <= {"checkpoint"}
    print(total, left, unfinished)
"""

# Two processes compute the same keys.
SHARED = """
    import sys, time
    from pathlib import Path
    from privbench.benchmark.store.store import Store

    store, log = Store(Path(sys.argv[1])), Path(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(20):
        key = f"{i:064x}"
        with store.lock("scores", key):
            if store.find("scores", key) is None:
                with log.open("a") as file:
                    file.write(f"{i}\\n")
                time.sleep(0.002)
                store.write("scores", key, tensors={}, info={}, files={"scores.json": b"{}"})
"""

HOLDING = """
    import sys, time
    from pathlib import Path
    from privbench.benchmark.store.store import Store

    with Store(Path(sys.argv[1])).lock("target", sys.argv[2]):
        print("held", flush=True)
        time.sleep(60)
"""


def start(code, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def test_killed_at_any_moment(tmp_path):
    process = start(KILLED, tmp_path, 50)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    lines, left, unfinished = map(int, output.split())
    assert lines > 300
    assert left > 8
    assert 30 < unfinished < 60


def test_two_processes_make_each_key_once(tmp_path):
    log = tmp_path / "log"
    processes = [start(SHARED, tmp_path / "store", log) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert sorted(map(int, log.read_text().split())) == list(range(20))
    store = Store(tmp_path / "store")
    assert store.check() == []
    assert len(list(store.entries())) == 20


@pytest.fixture
def holder(tmp_path):
    process = start(HOLDING, tmp_path / "store", KEY)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_killed_process_releases_its_lock(tmp_path, holder, caplog):
    store = Store(tmp_path / "store")
    timer = threading.Timer(0.3, holder.send_signal, [signal.SIGKILL])
    timer.start()
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, logger="privbench"), store.lock("target", KEY):
        assert time.monotonic() - began > 0.25
    timer.join()
    assert len(caplog.records) == 1
    assert f"held by process {holder.pid} on " in caplog.text
    assert f"target {KEY[:12]}" in caplog.text


def test_locked_keys_are_not_changed(tmp_path, holder):
    store = Store(tmp_path / "store")
    leftover = store.root / "tmp" / f"target-{KEY}-12345678"
    leftover.mkdir()
    folder = store.root / "target" / KEY[:2] / KEY
    folder.mkdir(parents=True)
    assert store.find("target", KEY) is None
    assert [problem.repaired for problem in store.check(repair=True)] == [False]
    assert store.gc(set()) == []
    assert leftover.exists()
    assert folder.exists()
    holder.kill()
    holder.wait()
    assert [problem.repaired for problem in store.check(repair=True)] == [True, True]
    assert store.check() == []


def test_the_holder_of_a_lock_removes_leftovers_of_its_key_alone(tmp_path):
    store = Store(tmp_path / "store")
    store.write("target", KEY, tensors={}, info={})
    own, others = (store.root / "tmp" / f"target-{key}-12345678" for key in (KEY, "0" * 64))
    for folder in (own, others):
        folder.mkdir()
    with store.lock("target", KEY):
        assert (own.exists(), others.exists()) == (False, True)


def test_only_the_thread_that_holds_a_lock_can_take_it_again(tmp_path):
    store, order = Store(tmp_path / "store"), []

    def other():
        with store.lock("target", KEY):
            order.append("other")

    with store.lock("target", KEY):
        with store.lock("target", KEY):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.15)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]


def test_a_lock_is_released_after_an_error(tmp_path):
    store = Store(tmp_path / "store")
    with pytest.raises(RuntimeError, match="broken"), store.lock("target", KEY):
        raise RuntimeError("broken")
    with store.lock("target", KEY):
        pass
    assert not (store.root / "locks" / f"target-{KEY}.json").exists()


def test_an_unreadable_owner_is_another_process(tmp_path, caplog):
    store = Store(tmp_path / "store")
    done = threading.Event()

    def hold():
        with store.lock("target", KEY):
            (store.root / "locks" / f"target-{KEY}.json").write_text(json.dumps(["no", "owner"]))
            done.set()
            time.sleep(0.15)

    thread = threading.Thread(target=hold)
    thread.start()
    done.wait()
    with store.lock("target", KEY):
        pass
    thread.join()
    assert "held by another process" in caplog.text
