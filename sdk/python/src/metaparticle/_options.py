"""What a decorator was told, checked and turned into one flat description of the app."""

import os
import re
from collections import namedtuple

PackageFile = namedtuple("PackageFile", ["src", "dest", "mode"])
PackageFile.__new__.__defaults__ = (None,)

App = namedtuple("App", ["name", "repository", "publish", "replicas", "ports", "env"])

_IGNORED = {"verbose", "quiet", "version", "builder", "py_version", "public", "executor"}
_NOT_YET = {"shardSpec", "jobSpec", "dockerfile", "additionalFiles"}
_KNOWN = {"name", "repository", "publish", "replicas", "ports", "env"}


class OptionError(ValueError):
    """An option of the decorator that cannot be honoured; the message names it."""


def from_repository_and_options(repository, options):
    """Reads ``@containerize(repository, options={...})``."""
    if repository is not None:
        options.setdefault("repository", repository)
    return _app(options)


def from_package_and_runtime(package, runtime):
    """Reads ``@Containerize(package={...}, runtime={...})``."""
    return _app({**package, **runtime})


def _app(options):
    for key, value in options.items():
        if key in _NOT_YET and value:
            raise OptionError("option %r is not supported yet" % key)
        if key not in _KNOWN | _IGNORED | _NOT_YET:
            raise OptionError("unknown option %r; known are %s" % (key, ", ".join(sorted(_KNOWN | _IGNORED))))
    return App(
        name=_name(options.get("name")),
        repository=options.get("repository"),
        publish=bool(options.get("publish")),
        replicas=_count("replicas", options.get("replicas")),
        ports=[_port(port) for port in options.get("ports") or []],
        env={str(key): str(value) for key, value in (options.get("env") or {}).items()},
    )


def _name(name):
    name = name or re.sub(r"[^a-z0-9-]+", "-", os.path.basename(os.getcwd()).lower()).strip("-") or "app"
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
        raise OptionError("option 'name': %r is not a DNS label (lower-case letters, digits and '-')" % name)
    return name


def _count(option, value):
    # Metaparticle writes 0 for "not given".
    if not value:
        return 1
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError("option %r: %r is not a count" % (option, value))
    return value


def _port(value):
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise OptionError("option 'ports': %r is not a port" % (value,))
    return value
