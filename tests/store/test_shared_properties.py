"""Properties of two tiers under any order of events: no mixed artifact is found, and intact ones are kept."""

from __future__ import annotations

import logging
import shutil
import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from privbench.benchmark.core.paths import Address
from privbench.benchmark.errors import CorruptArtifactError, StorageError
from privbench.benchmark.store import shared_files, shared_maintenance
from privbench.benchmark.store.manifest import seal, unseal
from privbench.benchmark.store.shared import checked
from privbench.benchmark.store.shared_files import RemoteFiles
from privbench.benchmark.store.store import Store

KEYS = st.sampled_from(["ab" + "0" * 62, "ab" + "1" * 62])
MACHINES = st.sampled_from(["first", "second", "third"])
CONTENTS = st.sampled_from([b"one", b"two", b"six"])


class Away:
    """A shared tier that cannot be reached."""

    def __getattr__(self, name):
        def call(*_):
            raise ConnectionError("no route to host")

        return call


class Tiers(RuleBasedStateMachine):
    """Machines write, find, remove and damage artifacts; each step is a new process."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.url = f"memory://{uuid.uuid4().hex}"
        self.files = RemoteFiles(self.url)
        self.away = False
        self.written: dict[str, set[str]] = {}
        #: What the shared tier holds, by key, as long as nobody damages or removes it.
        self.standing: dict[str, str] = {}
        #: Keys whose published artifact may be damaged.
        self.doubtful: set[str] = set()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(shared_files, "PAUSES", ())
        self.patch.setattr(shared_maintenance, "GRACE_SECONDS", -1.0)
        logging.getLogger("privbench").setLevel(logging.ERROR)

    def teardown(self) -> None:
        self.patch.undo()
        logging.getLogger("privbench").setLevel(logging.NOTSET)
        shutil.rmtree(self.folder)

    def open(self, machine: str) -> Store:
        store = Store(Address(str(self.folder / machine), self.url))
        if self.away:
            store._remote.files._backend = Away()
        return store

    def stands(self, key, digest):
        """What was found is what the shared tier holds."""
        if key not in self.doubtful:
            assert self.standing.setdefault(key, digest) == digest

    def whole(self, artifact, key) -> str:
        """The digest of an artifact, which is one that somebody wrote under the key, and not of two writers."""
        assert artifact.key == key
        assert artifact.digest in self.written[key]
        assert artifact.file("a") * 2 == artifact.file("b")
        return artifact.digest

    @rule(machine=MACHINES, key=KEYS, content=CONTENTS)
    def write(self, machine, key, content):
        store = self.open(machine)
        files = {"a": content, "b": content * 2}
        local = Store(self.folder / "unshared").root / uuid.uuid4().hex
        digest = Store(local).write("target", key, tensors={}, info={}, files=files).digest
        self.written.setdefault(key, set()).add(digest)
        try:
            made = store.write("target", key, tensors={}, info={"by": machine}, files=files)
        except StorageError:
            assert self.away
            return
        assert not self.away
        self.stands(key, self.whole(made, key))

    @rule(machine=MACHINES, key=KEYS, verify=st.booleans())
    def find(self, machine, key, verify):
        had = self.open(machine).exists("target", key)
        try:
            found = self.open(machine).find("target", key, verify=verify)
        except StorageError:
            assert self.away
            return
        assert not self.away
        if found is None:
            assert key not in self.standing
            return
        try:
            digest = self.whole(found, key)
        except CorruptArtifactError:
            assert had
            assert not verify
            return
        self.stands(key, digest)

    @rule(machine=MACHINES, key=KEYS)
    def discard(self, machine, key):
        found = self.open(machine)
        try:
            found.discard("target", key)
        except StorageError:
            assert self.away
            return
        self.standing.pop(key, None)

    @rule()
    def leave_or_return(self):
        self.away = not self.away

    @rule(machine=MACHINES)
    def lose_a_cache(self, machine):
        shutil.rmtree(self.folder / machine, ignore_errors=True)

    @rule(machine=MACHINES, data=st.data())
    def damage_a_cache(self, machine, data):
        files = sorted(path for path in (self.folder / machine / "target").rglob("*") if path.is_file())
        if files:
            path = data.draw(st.sampled_from(files))
            content = path.read_bytes()
            path.write_bytes(content[: data.draw(st.integers(0, len(content)))])

    @precondition(lambda self: self.standing)
    @rule(data=st.data())
    def damage_the_shared_tier(self, data):
        """Cut a file, put another in its place, change a manifest under a right checksum, or take it away."""
        names = sorted(name for name in self.files.sizes() if name.partition("/")[0] in ("blobs", "target"))
        name = data.draw(st.sampled_from(names))
        content = self.files.read(name, 10_000)
        how = data.draw(st.sampled_from(["cut", "swap", "forge", "remove"]))
        if how == "swap":
            content = self.files.read(data.draw(st.sampled_from(names)), 10_000)
        elif how == "forge" and name.endswith(".json"):
            field = data.draw(st.sampled_from(["kind", "key", "created", "format", "files"]))
            content = self.forged(content, field)
        else:
            content = content[: data.draw(st.integers(0, len(content)))]
        if how == "remove":
            self.files.remove(name)
        else:
            (self.folder / "damage").write_bytes(content)
            self.files.put(name, self.folder / "damage")
        self.doubtful |= self.written.keys()
        self.standing.clear()

    def forged(self, content, field):
        try:
            return seal(unseal(content) | {field: {"../x": {"bytes": 1, "sha256": "0" * 64}}})
        except CorruptArtifactError:
            return content

    @rule(machine=MACHINES, keep=st.booleans(), shared=st.booleans())
    def gc(self, machine, keep, shared):
        try:
            self.open(machine).gc(None if keep else set(), shared=shared)
        except StorageError:
            assert self.away
            return
        if shared and not keep:
            self.standing.clear()

    @rule(machine=MACHINES, repair=st.booleans())
    def check(self, machine, repair):
        try:
            problems = self.open(machine).check(repair=repair)
        except StorageError:
            assert self.away
            return
        assert not [problem for problem in problems if problem.tier == "shared" and problem.key in self.standing]
        if repair:
            assert self.open(machine).check() == []

    @invariant()
    def what_is_not_there_is_not_damaged(self):
        names = self.files.sizes()
        self.doubtful = {key for key in self.doubtful if f"target/{key[:2]}/{key}.json" in names}

    @invariant()
    def what_stands_is_whole(self):
        """Without asking any machine."""
        for key, digest in self.standing.items():
            manifest = checked(self.files.read(f"target/{key[:2]}/{key}.json", 10_000), "target", key)
            assert digest in self.written[key]
            for facts in manifest.files.values():
                name = f"blobs/{facts.sha256[:2]}/{facts.sha256}"
                assert len(self.files.read(name, 10_000)) == facts.bytes

    @invariant()
    def nothing_is_left_behind(self):
        for machine in ("first", "second", "third"):
            folder = self.folder / machine / "tmp"
            assert not folder.exists() or not list(folder.iterdir())
        assert not [name for name in self.files.sizes() if name.startswith("tmp/")]


TestTiers = Tiers.TestCase
TestTiers.settings = settings(deadline=None, max_examples=30, stateful_step_count=20)
