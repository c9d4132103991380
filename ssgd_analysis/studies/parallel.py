"""Independent calls over the cores: processes of one thread each, that die with their parent."""

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from joblib import Parallel, delayed

Call = tuple[Callable[..., Any], tuple[Any, ...]]


def parallel(calls: Sequence[Call], jobs: int) -> Iterator[Any]:
    """Results of independent calls, in the order in which they are done.

    Args:
        calls: functions that can be pickled, and their arguments.
        jobs: processes at once; with one, the calls run here.
    """
    workers = Parallel(n_jobs=min(jobs, max(len(calls), 1)), return_as="generator_unordered")
    parent = os.getpid()
    return workers(delayed(_one_thread)(parent, *call) for call in calls)


def _one_thread(parent: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    if os.getpid() != parent:
        _begin_worker(parent)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(*arguments)
    finally:
        torch.set_num_threads(before)


@functools.cache
def _begin_worker(parent: int) -> None:
    """Once in each worker process.

    stdout is the parent's, for its answer: what a stranger's model prints goes to stderr.
    joblib's workers outlive a parent that was killed by five minutes; they would go on
    writing into the folder of a study that is being resumed, so they end soon after it.
    """
    os.dup2(2, 1)
    torch.backends.cudnn.allow_tf32 = False  # as resolve_device does in the parent

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
