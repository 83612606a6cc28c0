# Asked of the interpreter that would run the program, started the way the program would be: what is it, where is its
# library, where does it look for modules? Answers on the last line of its output. Works from Python 3.6 on.
import json
import os
import site
import sys

packages = site.getsitepackages() if hasattr(site, "getsitepackages") else []
library = os.path.dirname(os.path.abspath(os.__file__))
print()
print(json.dumps({
    "version": list(sys.version_info[:3]),
    "executable": sys.executable,
    "base_executable": getattr(sys, "_base_executable", sys.executable),
    "prefix": sys.prefix,
    "base_prefix": sys.base_prefix,
    "library": library,
    "path": [entry for entry in sys.path if entry],
    "packages": packages,
    "cache_tag": sys.implementation.cache_tag or "",
    "implementation": sys.implementation.name,
}))
