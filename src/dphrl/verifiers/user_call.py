"""A call of a user's function that leaves this process as it was, and ends."""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dphrl.errors import VerifierError


class _TimeIsUp(BaseException):
    """Raised in the middle of a user's function, which may catch every Exception."""


def call(function: Callable[..., Any], arguments: dict[str, Any], *, name: str, timeout_s: float) -> Any:
    """What a function returns, plain or async, called in the main thread or in another.

    Folder, gradient mode and random numbers (Python's, NumPy's, torch's) are afterwards what they were: a function that
    seeds torch does not make every generation draw alike.

    Args:
        timeout_s: the function may take, in seconds. Kept in the main thread of systems with interval timers.
    Raises:
        VerifierError: it did not return in time. Whatever the function raises.
    """
    with _left_as_it_was():
        try:
            with _limited(timeout_s):
                returned = function(**arguments)
                return _awaited(returned) if inspect.isawaitable(returned) else returned
        except _TimeIsUp:
            raise VerifierError(
                f"verifier {name!r} did not return within {timeout_s:g} s; mend it, or give it longer: "
                "task.verifier_args.timeout_s"
            ) from None


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def end(*_: object) -> None:
        raise _TimeIsUp

    before = signal.signal(signal.SIGALRM, end)
    rest, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, rest, interval)
        signal.signal(signal.SIGALRM, before)


def _awaited(returned: Any) -> Any:
    """The result of an awaitable; in a thread of its own where a loop runs here already, as in a notebook."""

    async def waited() -> Any:
        return await returned

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(waited())
    results: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(waited()))
        except BaseException as error:  # it is raised where the result was wanted
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def _left_as_it_was() -> Iterator[None]:
    """Only what is imported can have been changed, but for the folder and Python's own random numbers."""
    folder, drawn = Path.cwd(), random.getstate()
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    numpy_drawn = None if numpy is None else numpy.random.get_state()
    gradient = torch_drawn = cuda_drawn = None
    if torch is not None:
        gradient, torch_drawn = torch.is_grad_enabled(), torch.get_rng_state()
        cuda_drawn = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        with suppress(FileNotFoundError):  # the folder is gone: there is none to go back to
            os.chdir(folder)
        random.setstate(drawn)
        if numpy is not None:
            numpy.random.set_state(numpy_drawn)
        if torch is not None:
            torch.set_grad_enabled(gradient)
            torch.set_rng_state(torch_drawn)
            if cuda_drawn is not None:
                torch.cuda.set_rng_state_all(cuda_drawn)
