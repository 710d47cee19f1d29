"""Many writers of one key with different bytes: one complete artifact is kept, and all writers return it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import threading

import pytest
from helpers.killed import ENVIRONMENT
from privbench.benchmark.core.paths import Address
from privbench.benchmark.store.store import Store

KEYS = [f"{i:02x}" + "0" * 62 for i in range(6)]
WRITERS = 4

# A writer makes every key with bytes of its own as soon as the others are ready, and prints what it was given.
WRITER = """
    import json, sys
    from pathlib import Path
    from privbench.benchmark.core.paths import Address
    from privbench.benchmark.store.store import Store

    name, root, url, *keys = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    store = Store(Address(root, url))
    digests = {}
    for key in keys:
        files = {f"file{i}": f"{name} {key}".encode() * 1000 for i in range(4)}
        made = store.write("scores", key, tensors={}, info={"writer": name}, files=files)
        writers = {made.file(each).split()[0].decode() for each in files}
        assert writers == {made.info["writer"]}, writers
        digests[key] = made.digest
    print(json.dumps(digests), flush=True)
"""

# A machine that computes, publishes, takes over and downloads, in children that are killed before their n-th line of
# the package, for n over the whole work.
KILLED = """
    import os, random, shutil, sys
    from pathlib import Path
    from helpers.killed import lines_of
    from privbench.benchmark import files
    from privbench.benchmark.core.paths import Address
    from privbench.benchmark.store.store import Store

    root, kills = Path(sys.argv[1]), int(sys.argv[2])
    package = str(Path(files.__file__).parents[1])
    keys = {"made": "a" * 64, "downloaded": "b" * 64, "contested": "c" * 64}

    def make(store, key, writer):
        with store.lock("target", key):
            if store.find("target", key) is None:
                files = {"a": writer * 60, "b": writer * 90}
                store.write("target", key, tensors={}, info={"writer": writer.decode()}, files=files)

    def prepared(folder):
        "A shared tier where another machine was quicker, and the local tier of one that did not know."
        remote = f"file://{folder}/shared"
        local, other = Address(str(folder / "local"), remote), Address(str(folder / "other"), remote)
        make(Store(Address(local.root)), keys["contested"], b"local")
        for name in ("downloaded", "contested"):
            make(Store(other), keys[name], b"other")
        return local, other

    def work(address):
        for key in keys.values():
            make(Store(address), key, b"local")

    def writer(store, key):
        found = store.find("target", key)
        if found is None:
            return None
        assert found.file("a") == found.info["writer"].encode() * 60, key
        assert found.file("b") == found.info["writer"].encode() * 90, key
        return found.info["writer"]

    local, _ = prepared(root / "whole")
    total = lines_of(package, lambda: work(local))
    generator, unfinished = random.Random(0), set()
    for kill in range(kills):
        local, other = prepared(root / str(kill))
        child = os.fork()
        if child == 0:
            lines_of(package, lambda: work(local), 1 + kill * total // kills + generator.randrange(total // kills))
            os._exit(0)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert not [problem for problem in Store(local).check() if problem.tier == "shared"]
        found = [writer(Store(other), key) for key in keys.values()]
        unfinished.add(found[0] is None)
        assert found in ([None, "other", "other"], ["local", "other", "other"]), found
        work(local)
        for address in (local, other, Address(str(root / str(kill) / "third"), local.remote)):
            assert [writer(Store(address), key) for key in keys.values()] == ["local", "other", "other"]
            assert Store(address).check() == []
        shutil.rmtree(root / str(kill))
    assert unfinished == {True, False}
    print(total)
"""


def test_killed_at_any_moment(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), "20"]
    environment = {**os.environ, **ENVIRONMENT}
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 1000


def published(machines, key):
    """Digest and writer of the artifact that an uninvolved machine finds."""
    found = machines.open("reader").find("scores", key)
    writers = {found.file(name).split()[0].decode() for name in found.manifest.files}
    assert writers == {found.info["writer"]}
    return found.digest, found.info["writer"]


def test_processes_in_a_shared_folder(in_a_folder, tmp_path):
    processes = []
    for i in range(WRITERS):
        arguments = [f"writer{i}", tmp_path / f"cache{i}", in_a_folder.url, *KEYS]
        command = [sys.executable, "-c", textwrap.dedent(WRITER), *map(str, arguments)]
        environment = {**os.environ, **ENVIRONMENT}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        processes.append(process)
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * WRITERS, outputs
    digests = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
    winners = set()
    for key in KEYS:
        digest, winner = published(in_a_folder, key)
        assert {each[key] for each in digests} == {digest}
        winners.add(winner)
    assert "its result is used" in "".join(error for _, error in outputs)  # they did meet
    for i in range(WRITERS):
        store = Store(Address(str(tmp_path / f"cache{i}"), in_a_folder.url))
        assert store.check() == []
        assert {store.find("scores", key).digest for key in KEYS} == {digests[0][key] for key in KEYS}
    assert not in_a_folder.names("tmp/")
    assert not in_a_folder.names("quarantine/")


def write_at_once(machines, keys):
    """Digests by key that threads, each with its own local tier, return."""
    digests, barrier = [{} for _ in range(WRITERS)], threading.Barrier(WRITERS)

    def write(i):
        store = machines.open(f"cache{i}")
        for key in keys:
            barrier.wait(timeout=30)
            files = {f"file{j}": f"writer{i} {key}".encode() * 10 for j in range(3)}
            made = store.write("scores", key, tensors={}, info={"writer": f"writer{i}"}, files=files)
            digests[i][key] = made.digest

    threads = [threading.Thread(target=write, args=(i,)) for i in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return digests


def test_threads_in_memory(machines):
    digests = write_at_once(machines, KEYS)
    for key in KEYS:
        assert {each[key] for each in digests} == {published(machines, key)[0]}


def test_threads_on_one_cache(machines):
    """Workers of one machine: one computes a key, the others wait."""
    stores, given = [machines.open("one") for _ in range(WRITERS)], []

    def write(store, i):
        for key in KEYS[:3]:
            with store.lock("scores", key):
                if store.find("scores", key) is None:
                    store.write("scores", key, tensors={}, info={"writer": f"writer{i}"}, files={"a": b"writer%d" % i})
                given.append((key, store.find("scores", key).digest))

    threads = [threading.Thread(target=write, args=(store, i)) for i, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(set(given)) == sorted((key, published(machines, key)[0]) for key in KEYS[:3])
    assert len(given) == 3 * WRITERS


def test_many_readers_download_once(machines, requests):
    write_at_once(machines, KEYS[:1])
    requests.clear()
    found = []

    def read():
        found.append(machines.open("reader").find("scores", KEYS[0]).digest)

    threads = [threading.Thread(target=read) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(found) == WRITERS
    assert len(set(found)) == 1
    assert len([what for what, *_ in requests if what == "chunks"]) == 3


def test_a_folder_without_hard_links(in_a_folder, monkeypatch):
    """The artifact is complete; machines that come later use it."""

    def refuse(*_, **__):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    write_at_once(in_a_folder, KEYS)
    for key in KEYS:
        published(in_a_folder, key)
    late = in_a_folder.open("late").write("scores", KEYS[0], tensors={}, info={"writer": "late"}, files={})
    assert late.digest == published(in_a_folder, KEYS[0])[0]


class Forgetful:
    """A file system without exclusive creation: the last manifest wins."""

    def __init__(self, files):
        self._files = files

    def __getattr__(self, name):
        return getattr(self._files, name)

    def create(self, name, data):
        self._files.remove(name)
        return self._files.create(name, data)


def test_without_exclusive_creation_no_artifact_is_mixed(in_memory):
    for name in ("first", "second"):
        store = in_memory.open(name)
        store._remote.files = Forgetful(store._remote.files)
        look, looks = store._remote.manifest, iter([None])  # both look before either writes
        store._remote.manifest = lambda *key, look=look, looks=looks: look(*key) if next(looks, True) else None
        made = store.write("scores", KEYS[0], tensors={}, info={"writer": name}, files={"a": name.encode()})
        assert made.info["writer"] == name
    assert published(in_memory, KEYS[0])[1] == "second"
    assert in_memory.open("first").find("scores", KEYS[0]).file("a") == b"second"


@pytest.mark.parametrize("kept", range(6))
def test_a_writer_that_is_killed_leaves_nothing_to_be_found(machines, kept):
    """The writer is killed after each of its requests; leftover blobs are harmless."""
    store = machines.open("killed")
    store._remote.prepare()
    files, left = store._remote.files, [kept]

    def killed(name):
        real = getattr(files, name)

        def call(*arguments):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(*arguments)

        return call

    for name in ("read", "put", "create"):
        setattr(files, name, killed(name))
    contents = {"a": b"killed 1", "b": b"killed 2"}
    try:
        store.write("scores", KEYS[0], tensors={}, info={"writer": "killed"}, files=contents)
        assert kept == 5
    except KeyboardInterrupt:
        assert kept < 5
    done = machines.open("other").find("scores", KEYS[0])
    if kept < 4:
        assert done is None
        other = machines.open("other")
        other.write("scores", KEYS[0], tensors={}, info={"writer": "other"}, files={"a": b"other"})
        assert published(machines, KEYS[0])[1] == "other"
        assert machines.open("killed").find("scores", KEYS[0]).info["writer"] == "other"
    else:
        assert done.info["writer"] == "killed"
