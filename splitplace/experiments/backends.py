"""Connects joblib with a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def connect(backend: str, address: str | None) -> Iterator[None]:
    """Makes a backend of joblib ready while the context lasts. Those of one machine need nothing.

    Args:
        backend: `dask` or `ray` connect; the package must be installed, there and here, and ours there too.
        address: of the scheduler; None starts a cluster on this machine.

    Raises:
        ModuleNotFoundError: the package is not installed.
        OSError: the cluster cannot be reached.
    """
    if backend == "dask":
        with import_module("dask.distributed").Client(address):
            yield
    elif backend == "ray":
        ray = import_module("ray")
        ray.init(address=address)
        try:
            import_module("ray.util.joblib").register_ray()
            yield
        finally:
            ray.shutdown()
    else:
        yield
