"""Metaparticle's own module name: ``from metaparticle_pkg import Containerize``."""

from metaparticle import Containerize, OptionError, PackageFile, containerize, in_container

__all__ = ["Containerize", "OptionError", "PackageFile", "containerize", "in_container"]
