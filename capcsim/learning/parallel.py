"""Many independent jobs on several processes, here or on several machines: joblib's engines."""

import re
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from multiprocessing import resource_tracker
from typing import Any, Literal, TypeAlias

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError

from capcsim.errors import InputError, WorkerFailed

Engine: TypeAlias = Literal["loky", "dask", "ray"]
INSTALL = {"dask": "pip install 'dask[distributed]'", "ray": "pip install ray"}


def run_all(
    function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]], *, workers: int, engine: Engine = "loky"
) -> Iterator[Any]:
    """The results of function(*job), in the order of the jobs, as they come (with ray: when all have come).

    "loky" runs processes on this machine; "dask" and "ray" use a cluster that is already there
    (DASK_SCHEDULER_ADDRESS, RAY_ADDRESS), or start one here with so many workers. Raises InputError where an engine is
    not installed, WorkerFailed when one of loky's processes dies.
    """
    jobs = list(jobs)
    if not jobs:
        return
    with ExitStack() as stack:
        if engine != "loky":
            stack.enter_context(_cluster(engine, workers))
        # Ray's backend hands results over all at once.
        return_as = "list" if engine == "ray" else "generator"
        try:
            with _deaf_processes() if workers > 1 else nullcontext():
                results = Parallel(n_jobs=workers, return_as=return_as)(delayed(function)(*job) for job in jobs)
            yield from results
        except TerminatedWorkerError as error:
            # Of joblib's five sentences, the exit codes.
            codes = re.search(r"\{(.*?)\}", str(error))
            how = f" ({codes[1]})" if codes else ""
            raise WorkerFailed(
                f"a process that trained models ended early{how}; if memory is short, take fewer --workers"
            ) from None


@contextmanager
def _deaf_processes() -> Iterator[None]:
    """Processes that start now do not hear Ctrl-C, which a terminal sends them too: this one decides, and ends them.

    It hears one that comes meanwhile afterwards.
    """
    resource_tracker.ensure_running()  # starting it later would let the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cluster(engine: Engine, workers: int) -> Any:
    try:
        if engine == "dask":
            from distributed import Client

            return _Dask(Client, workers)
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise InputError(f"--engine {engine}: it is not installed; get it with: {INSTALL[engine]}") from None
    if not ray.is_initialized():
        ray.init(num_cpus=workers, log_to_driver=False)
    register_ray()  # type: ignore[no-untyped-call,unused-ignore]
    return parallel_config(backend="ray", n_jobs=workers)


class _Dask:
    """A client that lives as long as the jobs, with joblib told to use it."""

    def __init__(self, client: Any, workers: int) -> None:
        self._make, self._workers = client, workers

    def __enter__(self) -> None:
        import os

        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        own = {"n_workers": self._workers, "threads_per_worker": 1, "dashboard_address": None}
        self._client = self._make(address) if address else self._make(**own)
        self._config = parallel_config(backend="dask", n_jobs=self._workers)
        self._config.__enter__()

    def __exit__(self, *problem: object) -> None:
        self._config.__exit__(*problem)
        self._client.close()
