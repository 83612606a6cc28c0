# Which modules does a program import, directly or through others? Found by reading the source; nothing of the program or
# of its modules is executed. Reads a question and writes an answer in JSON. Runs under `python -I -S`, from Python 3.6 on.
#
# Whole top-level packages are taken once something in them is imported, and with them the distributions that their
# metadata or the program's requirements.txt require, because some imports happen by name at run time. In the program's own
# source every import counts; in installed packages those that are made when the module is loaded: what they try, or leave
# for later, is for features that their metadata calls extras.
import ast
import json
import os
import re
import sys
from importlib.machinery import PathFinder

PROCESS_CALLS = {"run", "call", "check_call", "check_output", "Popen", "getoutput", "getstatusoutput", "system", "popen",
                 "execv", "execve", "execvp", "execlp", "spawnlp", "create_subprocess_exec", "create_subprocess_shell"}
SHELL_CALLS = {"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell"}
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_][\w.]*)?\Z")
REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?")
EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
PROVIDED = ("metaparticle", "metaparticle_pkg")


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


class Found:
    """A module that is there: its file (if any), where its submodules are, and the search path entry it came from."""

    def __init__(self, name, origin, locations, entry):
        self.name, self.origin, self.locations, self.entry = name, origin, locations, entry


class Distributions:
    """The installed distributions of a search path, read when first asked for."""

    def __init__(self, path):
        self.path, self.by_name, self.by_module = path, None, {}

    def load(self):
        self.by_name = {}
        for entry in self.path:
            try:
                names = sorted(os.listdir(entry))
            except OSError:
                continue
            for name in names:
                stem, extension = os.path.splitext(name)
                if extension in (".dist-info", ".egg-info"):
                    self.add(entry, stem.split("-")[0], os.path.join(entry, name))

    def add(self, entry, name, info):
        if normal(name) in self.by_name:
            return
        distribution = (entry, info)
        self.by_name[normal(name)] = distribution
        for module in self.tops(distribution):
            self.by_module.setdefault((entry, module), distribution)

    @staticmethod
    def read(distribution, *names):
        for name in names:
            path = os.path.join(distribution[1], name) if os.path.isdir(distribution[1]) else distribution[1]
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    return file.read()
            except OSError:
                continue
        return ""

    def tops(self, distribution):
        """The names directly in the search path entry that belong to the distribution."""
        names = set(self.read(distribution, "top_level.txt").split()) if os.path.isdir(distribution[1]) else set()
        for line in self.read(distribution, "RECORD").splitlines() if os.path.isdir(distribution[1]) else ():
            first = line.split(",")[0].split("/")[0]
            if first and first != ".." and not first.endswith((".dist-info", ".pth")) and first != "__pycache__":
                names.add(first[:-3] if first.endswith(".py") else first)
        return names

    def of_module(self, entry, module):
        if self.by_name is None:
            self.load()
        return self.by_module.get((entry, module))

    def named(self, name):
        if self.by_name is None:
            self.load()
        return self.by_name.get(normal(name))

    def requirements(self, distribution, extras):
        """Names of what is required, with the extras that are wanted of each."""
        for line in self.read(distribution, "METADATA", "PKG-INFO").splitlines():
            if not line:
                break
            if line.startswith("Requires-Dist:"):
                extra = EXTRA.search(line)
                if extra is None or normal(extra.group(1)) in extras:
                    yield from self.parse(line.split(":", 1)[1])

    @staticmethod
    def parse(line):
        match = REQUIREMENT.match(line)
        if match:
            yield match.group(1), frozenset(normal(one.strip()) for one in (match.group(2) or "").split(","))


class Walk:
    def __init__(self, question):
        self.program = question["program"]
        self.folder = os.path.dirname(self.program)
        self.path = [self.folder] + [entry for entry in question["path"] if entry != self.folder]
        self.library = [os.path.realpath(entry) for entry in question["library"]]
        self.packages = {os.path.realpath(entry) for entry in question["packages"]}
        self.distributions = Distributions([entry for entry in self.path if not self.is_library(entry)])
        self.memory, self.pending, self.seen = {}, [], set()
        self.standard, self.local, self.missing = set(), set(), {}
        self.taken, self.metadata, self.entries, self.installed = set(), set(), set(), set()
        self.provided, self.commands, self.libraries = set(), set(), set()
        self.shell, self.watched, self.error = False, set(self.path), None

    # Finding modules.

    def is_library(self, entry):
        return os.path.realpath(entry) in self.library

    def is_local(self, entry):
        real = os.path.realpath(entry)
        inside = real == self.folder or real.startswith(self.folder + os.sep)
        return inside and real not in self.packages

    def find(self, name):
        if name not in self.memory:
            self.memory[name] = self.look(name)
        return self.memory[name]

    def look(self, name):
        parent, _, last = name.rpartition(".")
        if not parent:
            if name in sys.builtin_module_names:
                return Found(name, None, None, self.library[0])
            path = self.path
        else:
            above = self.find(parent)
            if above is None or not above.locations:
                return None
            path = above.locations
        try:
            spec = PathFinder.find_spec(name if not parent else last, path)
        except (ImportError, ValueError, OSError, AttributeError):
            return None
        if spec is None:
            return None
        locations = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
        origin = spec.origin if spec.origin not in (None, "namespace") and spec.has_location else None
        if parent:
            entry = above.entry
        elif origin:
            entry = os.path.dirname(os.path.dirname(origin) if locations is not None else origin)
        else:
            entry = os.path.dirname(locations[0]) if locations else self.folder
        return Found(name, origin, locations, entry)

    # Taking modules.

    def want(self, name, by, optional, local):
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            found = self.find(".".join(parts[:count]))
            if found is None:
                if count == 1 and parts[0] in PROVIDED:
                    self.provided.add(parts[0])
                elif count == 1 and local and not optional:
                    self.missing.setdefault(parts[0], by)
                return count > 1
            self.take(found, parts[0])
        return True

    def take(self, found, top):
        if found.name in self.seen:
            return
        self.seen.add(found.name)
        if self.is_library(found.entry) or found.entry.endswith("lib-dynload"):
            self.standard.add(found.name)
            return
        local = self.is_local(found.entry)
        if local:
            self.entries.add(found.entry)
        elif found.name == top:
            self.take_package(found)
        for location in found.locations or ():
            self.watched.add(location)
        if found.origin and found.origin.endswith((".py", ".pyw")):
            if local:
                self.local.add(os.path.realpath(found.origin))
            self.pending.append((found, local))
        elif found.origin and local:
            self.local.add(os.path.realpath(found.origin))

    def take_package(self, found):
        self.entries.add(found.entry)
        if found.locations is not None:
            self.taken.update(found.locations)
            self.entries.update(os.path.dirname(location) for location in found.locations)
        elif found.origin:
            self.taken.add(found.origin)
        distribution = self.distributions.of_module(found.entry, found.name)
        if distribution:
            self.take_distribution(distribution)

    def take_distribution(self, distribution, extras=frozenset()):
        entry, info = distribution
        if (info, extras) in self.installed:
            return
        self.installed.add((info, extras))
        self.metadata.add(info)
        for name in sorted(self.distributions.tops(distribution)):
            path = os.path.join(entry, name)
            if self.find(name) is None and os.path.exists(path):
                self.taken.add(path)
            elif name.isidentifier():
                self.want(name, info, True, False)
        self.take_required(self.distributions.requirements(distribution, extras))

    def take_required(self, requirements):
        for name, extras in requirements:
            required = self.distributions.named(name)
            if required:
                self.entries.add(required[0])
                self.take_distribution(required, extras)

    # Reading source.

    def run(self):
        program = Found("__main__", self.program, None, self.folder)
        self.local.add(self.program)
        self.entries.add(self.folder)
        self.pending.append((program, True))
        listed = os.path.join(self.folder, "requirements.txt")
        self.watched.add(listed)
        try:
            with open(listed, encoding="utf-8", errors="replace") as file:
                self.take_required(one for line in file for one in Distributions.parse(line))
        except OSError:
            pass
        while self.pending and self.error is None:
            found, local = self.pending.pop()
            self.read(found, local)

    def read(self, found, local):
        self.watched.add(found.origin)
        try:
            with open(found.origin, "rb") as file:
                tree = ast.parse(file.read(), found.origin)
        except (OSError, RecursionError, MemoryError):
            return
        except (SyntaxError, ValueError) as error:
            if found.origin == self.program:
                self.error = {"line": getattr(error, "lineno", None) or 1,
                              "message": "%s: %s" % (type(error).__name__, getattr(error, "msg", None) or error)}
            return
        package = found.name if found.locations is not None else found.name.rpartition(".")[0]
        strict = not local and self.distributions.of_module(found.entry, found.name.split(".")[0]) is not None
        pending = [(tree, False)]
        while pending:
            node, optional = pending.pop()
            if optional and strict:
                continue
            if isinstance(node, ast.If) and self.is_typing(node.test):
                pending.extend((child, optional) for child in node.orelse)
                continue
            if isinstance(node, ast.Try):
                guarded = optional or any(self.catches_import(handler.type) for handler in node.handlers)
                pending.extend((child, guarded) for child in node.body)
                pending.extend((child, guarded) for handler in node.handlers for child in handler.body)
                pending.extend((child, optional) for child in node.orelse + node.finalbody)
                continue
            later = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            self.look_at(node, found, package, optional, local)
            pending.extend((child, optional or later and strict) for child in ast.iter_child_nodes(node))

    @staticmethod
    def is_typing(test):
        return getattr(test, "id", getattr(test, "attr", None)) == "TYPE_CHECKING"

    @staticmethod
    def catches_import(kind):
        kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
        names = {getattr(one, "id", getattr(one, "attr", None)) for one in kinds}
        return kind is None or bool(names & {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})

    def look_at(self, node, found, package, optional, local):
        by = found.origin
        if isinstance(node, ast.Import):
            for alias in node.names:
                self.want(alias.name, by, optional, local)
        elif isinstance(node, ast.ImportFrom):
            base = self.absolute(node.module or "", node.level, package)
            if base is not None and (not base or self.want(base, by, optional, local)):
                for alias in node.names:
                    if alias.name != "*":
                        self.want(base + "." + alias.name if base else alias.name, by, True, False)
        elif isinstance(node, ast.Call):
            self.look_at_call(node, package, by, local)
        elif local and isinstance(node, (ast.Constant, getattr(ast, "Str", ast.Constant))):
            self.look_at_text(getattr(node, "value", getattr(node, "s", None)), by)

    @staticmethod
    def absolute(name, level, package):
        if not level:
            return name
        parts = package.split(".") if package else []
        if level - 1 > len(parts):
            return None
        base = parts[:len(parts) - (level - 1)]
        return ".".join(base + ([name] if name else []))

    def look_at_call(self, node, package, by, local):
        name = getattr(node.func, "id", getattr(node.func, "attr", None))
        first = self.text(node.args[0]) if node.args else None
        if name in ("import_module", "__import__") and first:
            level = len(first) - len(first.lstrip("."))
            target = self.absolute(first.lstrip("."), level, package)
            if target:
                self.want(target, by, True, False)
        elif name in ("CDLL", "LoadLibrary", "PyDLL") and first and ".so" in first and "/" not in first:
            self.libraries.add(first)
        elif local and name in PROCESS_CALLS and node.args:
            self.look_at_process(name, node, first)

    def look_at_process(self, name, node, first):
        given = node.args[0]
        shell = any(one.arg == "shell" and getattr(one.value, "value", True) for one in node.keywords)
        module = getattr(getattr(node.func, "value", None), "id", None)
        if name in SHELL_CALLS or shell:
            if name != "system" or module in (None, "os"):
                self.shell = True
                self.commands.update(first.split()[:1] if first else ())
        elif first and module in ("subprocess", "os", "asyncio", None) and " " not in first:
            self.commands.add(first)
        elif isinstance(given, (ast.List, ast.Tuple)) and given.elts:
            command = self.text(given.elts[0])
            if command:
                self.commands.add(command)

    def look_at_text(self, text, by):
        """A text of our own program that names a module: `uvicorn.run("main:app")`, a list of plugins."""
        if not isinstance(text, str) or len(text) > 200 or not DOTTED.match(text):
            return
        name = text.split(":")[0]
        found = self.find(name.split(".")[0])
        if found is None or self.is_library(found.entry):
            return
        if self.is_local(found.entry):
            self.want(name, by, True, False)
        elif "." in name and self.find(name) is not None:
            self.want(name, by, True, False)

    @staticmethod
    def text(node):
        value = getattr(node, "value", getattr(node, "s", None))
        return value if isinstance(value, str) else None

    def answer(self):
        return {
            "standard": sorted(self.standard),
            "local": sorted(self.local),
            "taken": sorted(self.taken),
            "metadata": sorted(self.metadata),
            "entries": [entry for entry in self.path if entry in self.entries or os.path.realpath(entry) in self.entries],
            "missing": sorted(self.missing.items()),
            "provided": sorted(self.provided),
            "commands": sorted(self.commands),
            "libraries": sorted(self.libraries),
            "shell": self.shell,
            "watched": sorted(path for path in self.watched if path),
            "error": self.error,
        }


sys.setrecursionlimit(10000)
walk = Walk(json.load(sys.stdin))
walk.run()
json.dump(walk.answer(), sys.stdout)
