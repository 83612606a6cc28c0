"""Infrastructure in the code: a decorated program packs, deploys and exposes itself when it is run.

On a developer's machine the decorated function hands the program to the ``shipway`` binary. Inside a container, which
the engine marks with ``METAPARTICLE_IN_CONTAINER``, it is simply called.
"""

from ._options import OptionError, PackageFile, from_package_and_runtime, from_repository_and_options
from ._run import in_container, run

__all__ = ["Containerize", "OptionError", "PackageFile", "containerize", "in_container"]


def containerize(repository=None, options=None, **more):
    """Decorates ``main``: ``@containerize('docker.io/me', options={'name': 'web', 'replicas': 3})``."""
    if callable(repository):  # plain @containerize
        return containerize()(repository)
    merged = dict(options or {}, **more)
    return _decorator(lambda: from_repository_and_options(repository, merged))


def Containerize(package=None, runtime=None):  # noqa: N802 - Metaparticle's own spelling
    """Decorates ``main``: ``@Containerize(package={'name': 'web', 'repository': 'me'}, runtime={'replicas': 3})``."""
    return _decorator(lambda: from_package_and_runtime(dict(package or {}), dict(runtime or {})))


def _decorator(app):
    def decorate(function):
        import functools

        @functools.wraps(function)
        def start(*args, **kwargs):
            if in_container():
                return function(*args, **kwargs)
            return run(app())

        return start

    return decorate
