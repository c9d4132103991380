"""Seconds taken in turn, and memory above the start."""

import gc
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch


class Peak:
    """Memory in bytes above the start, sampled every few milliseconds (allocator's on CUDA)."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")

    def __enter__(self) -> "Peak":
        gc.collect()
        self.bytes = 0
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return self
        self.process = psutil.Process()
        self.before, self.running = self.process.memory_info().rss, True
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while self.running:
            self.bytes = max(self.bytes, self.process.memory_info().rss - self.before)
            time.sleep(0.003)

    def __exit__(self, *error: object) -> None:
        if self.cuda:
            self.bytes = torch.cuda.max_memory_allocated() - self.before
            return
        self.running = False
        self.thread.join()


def in_turn(work: dict[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each, all taken in turn in every round, after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for index in range(rounds + 1):
        for name, run in work.items():
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            began = time.perf_counter()
            run()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            if index:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}
