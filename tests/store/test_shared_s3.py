"""The shared tier on an S3 server, if the packages for it are installed."""

from __future__ import annotations

import hashlib
import threading
import uuid

import pytest
from privbench.benchmark.core.paths import Address
from privbench.benchmark.errors import StorageError
from privbench.benchmark.store import shared_maintenance
from privbench.benchmark.store.shared_files import RemoteFiles
from privbench.benchmark.store.store import Store

pytest.importorskip("s3fs")
pytest.importorskip("flask")
moto_server = pytest.importorskip("moto.server")

KEY = "ab" + "0" * 62
OTHER = "ab" + "1" * 62
MANIFEST = f"target/ab/{KEY}.json"
CONTENT = b"content" * 10


@pytest.fixture(scope="module")
def server():
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    import fsspec

    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "name")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    name = f"bucket-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(name)
    return name


@pytest.fixture
def url(bucket):
    return f"s3://{bucket}/some/path"


@pytest.fixture
def machine(url, tmp_path):
    return lambda name="first": Store(Address(str(tmp_path / name), url))


def write(store, key=KEY, content=CONTENT):
    return store.write("target", key, tensors={}, info={"by": store.root.name}, files={"a": content, "empty": b""})


def blob(content):
    sha256 = hashlib.sha256(content).hexdigest()
    return f"blobs/{sha256[:2]}/{sha256}"


def test_what_one_machine_writes_another_finds(machine, url):
    store = machine()
    assert store.find("target", KEY) is None
    with store.lock("target", KEY):
        made = write(store)
    second = machine("second")
    assert second.find("target", KEY).digest == made.digest
    assert second.find("target", KEY).file("a") == CONTENT
    assert sorted(RemoteFiles(url).sizes()) == sorted(["format.json", MANIFEST, blob(CONTENT), blob(b"")])
    assert store.check() == second.check() == []
    assert [entry.bytes > len(CONTENT) for entry in second.shared_entries()] == [True]
    store.discard("target", KEY)
    assert machine("third").find("target", KEY) is None


def test_a_bucket_is_a_store(bucket, tmp_path):
    url = f"s3://{bucket}"
    write(Store(Address(str(tmp_path / "first"), url)))
    store = Store(Address(str(tmp_path / "second"), url))
    assert store.find("target", KEY) is not None
    assert store.check() == []


def test_creation_is_exclusive(url, tmp_path):
    """The server refuses the second creation, without a check before it."""
    threads, created = [], []
    files = RemoteFiles(url)
    for i in range(8):
        threads.append(threading.Thread(target=lambda i=i: created.append(files.create("x", b"%d" % i) and i)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = (each for each in created if each is not False)
    assert files.read("x", 10) == b"%d" % winner
    assert files.create("x", b"again") is False


def test_many_writers(machine):
    digests, barrier = [], threading.Barrier(4)

    def run(name):
        store = machine(name)
        barrier.wait()
        digests.append(write(store, content=name.encode()).digest)

    threads = [threading.Thread(target=run, args=(f"machine{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = machine("reader").find("target", KEY)
    assert digests == [found.digest] * 4
    assert found.file("a").decode() == found.info["by"]


@pytest.mark.parametrize("data", [b"", CONTENT[:-1], CONTENT + b"x", b"x" * len(CONTENT)])
def test_damage_is_detected_and_recomputed(machine, url, data, tmp_path):
    write(machine())
    (tmp_path / "damaged").write_bytes(data)
    RemoteFiles(url).put(blob(CONTENT), tmp_path / "damaged")
    second = machine("second")
    assert [problem.key for problem in second.check()] == [KEY]
    assert second.find("target", KEY) is None
    assert [name.partition("/")[0] for name in RemoteFiles(url).sizes()].count("quarantine") == 1
    write(second)
    assert machine("third").find("target", KEY).file("a") == CONTENT


@pytest.mark.parametrize("data", [b"", b"{}"])
def test_a_damaged_manifest_is_detected(machine, url, data, tmp_path):
    write(machine())
    (tmp_path / "damaged").write_bytes(data)
    RemoteFiles(url).put(MANIFEST, tmp_path / "damaged")
    assert machine("second").find("target", KEY) is None
    assert machine().find("target", KEY).file("a") == CONTENT
    assert machine("second").find("target", KEY).file("a") == CONTENT


def test_gc(machine, url, monkeypatch, tmp_path):
    (tmp_path / "x").write_bytes(b"unnamed")
    write(machine())
    write(machine(), key=OTHER, content=b"other")
    files = RemoteFiles(url)
    files.put(blob(b"unnamed"), tmp_path / "x")
    assert machine("second").gc(None, shared=True) == []
    monkeypatch.setattr(shared_maintenance, "GRACE_SECONDS", -10.0)
    removed = machine("second").gc({KEY}, shared=True)
    assert {entry.path.as_posix() for entry in removed} == {
        f"target/ab/{OTHER}.json",
        blob(b"other"),
        blob(b"unnamed"),
    }
    assert machine("second").check() == []
    assert machine("second").find("target", KEY) is not None


def test_a_bucket_that_does_not_exist(bucket, tmp_path):
    store = Store(Address(str(tmp_path / "cache"), f"s3://{bucket}-not/path"))
    assert store.find("target", KEY) is None
    with (
        pytest.raises(StorageError, match=rf"cannot write the shared store s3://{bucket}-not/path: .*does not exist"),
        store.lock("target", KEY),
    ):
        pytest.fail("nothing is computed that cannot be kept")
