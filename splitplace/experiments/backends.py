"""Connect joblib to a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def connect(backend: str, address: str | None) -> Iterator[None]:
    """Make a joblib backend available inside the context. Backends on this machine need no preparation.

    Args:
        backend: `dask` or `ray` connect to a cluster. The package must be installed on all machines, as must
            SplitPlace.
        address: address of the scheduler; None starts a cluster on this machine.

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
