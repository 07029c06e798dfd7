"""A Dask cluster by the address of its scheduler."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from quasistatic.errors import SweepError

#: Seconds that a scheduler has to answer, and then to name a worker.
ANSWER_SECONDS = 10.0


@contextmanager
def connect(address: str, timeout: float | None = None) -> Iterator[Executor]:
    """The executor of a running Dask scheduler, such as ``tcp://10.0.0.1:8786``; the connection is closed at the end.

    Raises
    ------
    SweepError
        If Dask is not installed, or the scheduler does not answer or has no worker within ``timeout`` seconds.
    """
    seconds = ANSWER_SECONDS if timeout is None else timeout
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        raise SweepError(f'the scheduler {address} needs Dask: pip install "quasistatic[distributed]".') from None
    try:
        client = distributed.Client(address, timeout=seconds, set_as_default=False)
    except (OSError, TimeoutError):
        raise SweepError(
            f"the scheduler {address} does not answer within {seconds:g} s. Is it running there, and can this machine reach it?"
        ) from None
    except (ValueError, RuntimeError, TypeError, ImportError) as error:
        raise SweepError(f"{address!r} is not the address of a Dask scheduler, such as tcp://127.0.0.1:8786: {error}.") from None
    try:
        try:
            client.wait_for_workers(1, timeout=seconds)
        except TimeoutError:
            raise SweepError(f"the scheduler {address} has no workers after {seconds:g} s: start one, dask worker {address}.") from None
        yield client.get_executor()
    finally:
        client.close()
