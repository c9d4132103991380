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
        _end_with(parent)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(*arguments)
    finally:
        torch.set_num_threads(before)


@functools.cache
def _end_with(parent: int) -> None:
    """End this process soon after its parent is gone.

    joblib's workers outlive a parent that was killed by five minutes; they would go on
    writing into the folder of a study that is being resumed.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
