"""A Dask cluster by the address of its scheduler."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
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
        _require_answer(distributed, address, seconds)
        client = distributed.Client(address, timeout=seconds, set_as_default=False)
    except (OSError, TimeoutError):
        raise SweepError(
            f"the scheduler {address} does not answer within {seconds:g} s. Is it running there, and can this machine reach it?"
        ) from None
    except Exception as error:  # what is wrong with an address depends on its protocol, and on who answers there
        why = f"{type(error).__name__}: {error}"
        raise SweepError(f"{address!r} is not the address of a Dask scheduler, such as tcp://127.0.0.1:8786 ({why}).") from None
    try:
        try:
            client.wait_for_workers(1, timeout=seconds)
        except TimeoutError:
            raise SweepError(f"the scheduler {address} has no workers after {seconds:g} s: start one, dask worker {address}.") from None
        executor: Executor = client.get_executor()
        try:
            yield executor
        finally:
            with suppress(Exception):  # a lost scheduler has nothing left to cancel, and the error that says so is on its way
                executor.shutdown(wait=False)
    finally:
        client.close()


def is_cut_off(executor: Executor) -> bool:
    """Whether a Dask executor has lost its scheduler for good; its futures would stay silent."""
    return getattr(getattr(executor, "_client", None), "status", "") in ("closing", "closed")


def _require_answer(distributed: Any, address: str, seconds: float) -> None:
    """Shake hands once: a client would wait without end for a port that is open and a program that says nothing."""
    comm: Any = importlib.import_module("distributed.comm")
    options = distributed.Security().get_connection_args("client")

    async def greet() -> None:
        async with asyncio.timeout(seconds):
            (await comm.connect(address, timeout=seconds, **options)).abort()

    with ThreadPoolExecutor(1) as thread:  # this one may have a loop already, as in a notebook
        thread.submit(asyncio.run, greet()).result()
