"""Checkpoints: the last one saved is loaded; damaged ones and those of other loops are not."""

from __future__ import annotations

import errno
import logging
import os

import pytest
import torch
from privbench.benchmark.errors import InvalidConfigurationError, StorageError
from privbench.benchmark.store.store import Store

KEY = "cd" + "0" * 62


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def checkpoint(store):
    return store.checkpoint("target", KEY)


def save(checkpoint, name="gan", step=1):
    groups = {"generator": {"w": torch.full((2,), float(step))}, "optimizer/state 0": {}, "": {"": torch.tensor(step)}}
    checkpoint.save(name, groups, {"step": step})


def only_file(store):
    (path,) = (path for path in (store.root / "checkpoints").rglob("*") if path.is_file())
    return path


def test_the_last_save_is_loaded(store, checkpoint):
    for step in (1, 2):
        save(checkpoint, step=step)
    groups, info = store.checkpoint("target", KEY).load("gan")
    assert info == {"step": 2}
    assert list(groups) == ["", "generator", "optimizer/state 0"]
    assert torch.equal(groups["generator"]["w"], torch.full((2,), 2.0))
    assert groups["optimizer/state 0"] == {}
    assert groups[""][""].item() == 2
    assert store.check() == []
    assert list((store.root / "tmp").iterdir()) == []


def test_loops_have_separate_checkpoints(store, checkpoint):
    names = ["gan", "GAN/generator", "..", "a b", "ä", "", "a%2Fb", "a/b"]
    for step, name in enumerate(names):
        save(checkpoint, name, step)
    assert [checkpoint.load(name)[1]["step"] for name in names] == list(range(len(names)))
    assert store.checkpoint("prior", KEY).load("gan") is None
    assert store.check() == []
    checkpoint.clear()
    assert [checkpoint.load(name) for name in names] == [None] * len(names)
    checkpoint.clear()
    assert store.check() == []


def test_every_flipped_byte_is_detected(store, checkpoint, caplog):
    save(checkpoint)
    path = only_file(store)
    data = path.read_bytes()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        assert len(store.check()) == 1, position
        with caplog.at_level(logging.WARNING, logger="privbench"):
            assert checkpoint.load("gan") is None, position
        assert not path.exists()
    assert caplog.text.count("checkpoint 'gan' of target cd0000000000 is damaged") == len(data)
    path.write_bytes(data)
    assert checkpoint.load("gan")[1] == {"step": 1}


def test_every_truncation_is_detected(store, checkpoint):
    save(checkpoint)
    path = only_file(store)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert checkpoint.load("gan") is None, length
    path.write_bytes(data + b"\0")
    assert checkpoint.load("gan") is None


def test_a_checkpoint_of_another_loop_or_stage_is_deleted(store, checkpoint, caplog):
    save(checkpoint, "gan")
    save(checkpoint, "flow")
    folder = store.root / "checkpoints" / "target" / "cd" / KEY
    (folder / "gan.checkpoint").replace(folder / "flow.checkpoint")
    assert checkpoint.load("flow") is None
    assert "it belongs to loop 'gan'" in caplog.text
    save(checkpoint, "gan")
    other = store.checkpoint("prior", KEY)
    save(other, "gan")
    (folder / "gan.checkpoint").replace(store.root / "checkpoints" / "prior" / "cd" / KEY / "gan.checkpoint")
    assert other.load("gan") is None


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_failed_save_keeps_the_old_one(store, checkpoint, call, monkeypatch):
    save(checkpoint, step=1)
    real, calls = getattr(os, call), []

    def failing(*args, **options):
        calls.append(1)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **options)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(StorageError, match="no space left on device; free some space"):
        save(checkpoint, step=2)
    assert calls
    assert checkpoint.load("gan")[1] == {"step": 1}
    assert list((store.root / "tmp").iterdir()) == []
    save(checkpoint, step=3)
    assert checkpoint.load("gan")[1] == {"step": 3}


def test_values_and_tensors_are_checked(checkpoint):
    with pytest.raises(InvalidConfigurationError, match="stored values"):
        checkpoint.save("gan", {}, {"loss": float("inf")})
    with pytest.raises(InvalidConfigurationError, match="dense tensor"):
        checkpoint.save("gan", {"g": {"x": [1.0]}}, {})
    assert checkpoint.load("gan") is None


def test_damage_is_found_and_repaired_by_check(store, checkpoint):
    save(checkpoint)
    path = only_file(store)
    path.write_bytes(b"x")
    (path.parent / "notes.txt").write_text("")
    assert [problem.repaired for problem in store.check()] == [False, False]
    assert [problem.repaired for problem in store.check(repair=True)] == [True, True]
    assert store.check() == []
    assert checkpoint.load("gan") is None
