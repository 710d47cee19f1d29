"""Components of a test plugin that compute almost nothing and fail on demand; `conftest.py` registers them."""

import os
import resource
import signal
import threading
import time
from pathlib import Path
from typing import ClassVar

import torch
from privbench import Attack, ClassReconstructions, Defense, setting
from torch import nn

LEAK: list[object] = []


class Blank(Defense):
    """A defense whose target is not trained."""

    def loss(self, network, x, y):
        raise AssertionError

    def train(self, private, context):
        with context.seeded("initialise"):
            return self.network(context.protocol).to(context.device).eval()


class Faulty(Attack):
    """An attack that returns black images, or fails."""

    access: ClassVar[str] = "white_box"
    how: str = setting("correct", "failure to cause; with the prefix `once`, only the first time")
    marks: str = setting("", "folder with a file per seed, to which every call adds its process number")
    seconds: float = setting(0.0, "duration", ge=0)
    fits: int = setting(1_000_000, "largest number of images per batch that fits into memory")

    def run(self, view, prior, request, context):
        how = self._how(context)
        time.sleep(self.seconds)
        if how != "correct":
            getattr(self, f"_{how}")(context)
        shape = (request.trials, request.draws, len(request.labels), *context.protocol.image)
        return ClassReconstructions(torch.zeros(shape, dtype=torch.uint8), torch.tensor(request.labels))

    def _how(self, context) -> str:
        name, _, rest = self.how.partition(" ")
        if self.marks:
            mark = Path(self.marks, f"{context.seed}")
            first = not mark.exists()
            with mark.open("a") as file:
                file.write(f"{os.getpid()}\n")
            if name == "once":
                return rest if first else "correct"
        return self.how

    def _killed(self, context) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _crashing(self, context) -> None:
        os._exit(3)

    def _hanging(self, context) -> None:
        while True:
            time.sleep(60)

    def _raising(self, context) -> None:
        raise ZeroDivisionError("no such label")

    def _threading(self, context) -> None:
        def work() -> None:
            raise KeyError("label")

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    def _leaking(self, context) -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
        while True:
            LEAK.append(bytearray(1 << 24))

    def _leaking_tensors(self, context) -> None:
        LEAK.append(torch.empty(1 << 60, dtype=torch.uint8))

    def _large(self, context) -> None:
        if context.chunk_size(64) > self.fits:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried")

    def _diverging(self, context) -> None:
        point = nn.ParameterDict({"z": nn.Parameter(torch.zeros(3))})

        def step(i, generator):
            point["z"].data.fill_(float("inf") if i == 4 else i)
            return {"loss": point["z"].sum().detach()}

        context.loop("attack", 6, {"point": point}, step)
