"""Independent calls over the cores, in processes of one thread each that die with their parent."""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, cpu_count, delayed

Call = tuple[Callable[..., Any], tuple[Any, ...]]


def default_jobs(device: str) -> int:
    """How many processes to use when nobody says: one for each core, on a GPU one in all."""
    return cpu_count() if device == "cpu" else 1


def parallel(calls: Sequence[Call], jobs: int) -> Iterator[Any]:
    """Yield the results of independent calls, in the order in which the calls finish.

    Args:
        calls: functions that can be pickled, and their arguments.
        jobs: the number of processes at once; with one, the calls run in this process.

    Example:
        >>> sorted(parallel([(abs, (-3,)), (abs, (2,))], jobs=1))
        [2, 3]
    """
    workers = Parallel(n_jobs=min(jobs, max(len(calls), 1)), return_as="generator_unordered")
    parent, folder = os.getpid(), Path.cwd()
    return workers(delayed(_one_thread)(parent, folder, *call) for call in calls)


def _one_thread(
    parent: int, folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> Any:
    if os.getpid() != parent:
        _begin_worker(parent)
        os.chdir(folder)  # a worker outlives a call, and its parent may have gone elsewhere
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(*arguments)
    finally:
        torch.set_num_threads(before)


@functools.cache
def _begin_worker(parent: int) -> None:
    """Prepare a worker process, once.

    The parent's stdout holds its answer, so what a user's model prints here goes to stderr. The
    parent alone handles Ctrl-C. A worker of joblib outlives a parent that was killed by five
    minutes and would go on writing into a folder that is being resumed; here it ends soon after.
    """
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.backends.cudnn.allow_tf32 = False  # as resolve_device does in the parent

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
