"""The address of a store: a folder or a URL, from the caller, the environment, or the default."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from privbench.benchmark.core.paths import Address, cache_root, store_root
from privbench.benchmark.errors import InvalidConfigurationError
from privbench.benchmark.store.store import Store, open_store

URLS = [
    "s3://bucket/path",
    "s3://bucket",
    "gs://bucket/a/b",
    "file:///shared/store",
    "memory://x",
    "sftp://me@host:2222/folder",
    "abfs://container@account.dfs.core.windows.net/path",
]
BAD = [
    "s3://",
    "s3:///",
    "file://relative",
    "file:///a/../b",
    "sftp://me:secret@host/folder",
    "s3://bucket/*",
    "s3://bucket/a b",
    "s3://bucket/a\nb",
    "s3://bucket?versionId=1",
    "simplecache::s3://bucket/path",
    "s3://bucket::file://x",
    "s3:/bucket/path",
]


def sent(address):
    """The address as another process receives it."""
    return pickle.loads(pickle.dumps(address))  # noqa: S301


def test_given_then_environment_then_default(monkeypatch, tmp_path):
    monkeypatch.setenv("PRIVBENCH_STORE", str(tmp_path / "named"))
    assert store_root(tmp_path / "given") == Address(str(tmp_path / "given"))
    assert store_root() == Address(str(tmp_path / "named"))
    for empty in (lambda: monkeypatch.setenv("PRIVBENCH_STORE", ""), lambda: monkeypatch.delenv("PRIVBENCH_STORE")):
        empty()
        assert store_root() == Address(str(cache_root() / "store"))
    monkeypatch.setenv("PRIVBENCH_CACHE", str(tmp_path / "cache"))
    assert store_root() == Address(str(tmp_path / "cache" / "store"))


def test_folders_are_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for given in ("~/here", Path("~/here"), "here", Path("here")):
        assert store_root(given) == Address(str(tmp_path / "here"))
    assert Store(Path("here")).address == Address(str(tmp_path / "here"))


@pytest.mark.parametrize("url", URLS)
def test_a_url_has_a_local_tier_of_its_own(url, monkeypatch, tmp_path):
    monkeypatch.setenv("PRIVBENCH_CACHE", str(tmp_path))
    address = store_root(url)
    assert address.remote == url
    assert Path(address.root).parent == tmp_path / "stores"
    assert store_root(url + "//") == address == store_root(address)
    monkeypatch.setenv("PRIVBENCH_STORE", url.replace(url.partition(":")[0], url.partition(":")[0].upper(), 1))
    assert store_root() == address
    assert sent(address) == address
    assert len({store_root(each).root for each in (*URLS, url + "x")}) == len(URLS) + 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", BAD)
def test_urls_that_cannot_be_stores(url):
    with pytest.raises(InvalidConfigurationError, match="expected a store's URL to be like") as caught:
        store_root(url)
    assert "secret" not in str(caught.value)
    with pytest.raises(InvalidConfigurationError, match="expected a store's URL"):
        open_store(url)


def test_a_store_is_opened_by_its_address(tmp_path):
    first = Store(tmp_path / "store")
    first.write("scores", "a" * 64, tensors={}, info={})
    for address in (first.address, str(tmp_path / "store"), tmp_path / "store"):
        again = open_store(sent(address))
        assert again.address == first.address
        assert again.find("scores", "a" * 64) is not None
