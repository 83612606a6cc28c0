"""Hands the running program over to the ``shipway`` binary."""

import os
import shutil
import sys

_YES = {"true", "1"}
_NO = {"false", "0"}


def in_container():
    """Whether this process runs inside a container already."""
    told = os.environ.get("METAPARTICLE_IN_CONTAINER", "").lower()
    if told in _YES | _NO:
        return told in _YES
    try:
        with open("/proc/1/cgroup", encoding="utf-8") as cgroup:
            lines = cgroup.read().strip().splitlines()
    except OSError:
        return False
    return bool(lines) and any(word in lines[-1] for word in ("docker", "kubepods"))


def run(app):
    """Replaces this process by ``shipway run`` for the program that called us."""
    program = os.path.abspath(sys.argv[0])
    command = command_line(app, binary(os.path.dirname(program)), program, sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)


def command_line(app, shipway, program, arguments):
    """The command that runs ``app``, as a list."""
    command = [shipway, "run", "--name", app.name, "--replicas", str(app.replicas)]
    command += ["--interpreter", sys.executable]
    if app.repository:
        command += ["--repository", app.repository]
    if app.publish:
        command += ["--publish"]
    for port in app.ports:
        command += ["--port", str(port)]
    for key, value in sorted(app.env.items()):
        command += ["--env", "%s=%s" % (key, value)]
    return command + [program] + (["--"] + list(arguments) if arguments else [])


def binary(folder):
    """The path of the ``shipway`` binary; exits with a hint where there is none."""
    told = os.environ.get("SHIPWAY_BIN")
    if told:
        return told
    found = shutil.which("shipway")
    if found:
        return found
    for start in (folder, os.path.dirname(os.path.abspath(__file__))):
        for checkout in _parents(start):
            for profile in ("release", "debug"):
                built = os.path.join(checkout, "target", profile, "shipway")
                if os.path.exists(os.path.join(checkout, "Cargo.toml")) and os.access(built, os.X_OK):
                    return built
    sys.exit("shipway: binary not found; put it on PATH, set SHIPWAY_BIN, or build it with `cargo build --release`")


def _parents(folder):
    while True:
        yield folder
        above = os.path.dirname(folder)
        if above == folder:
            return
        folder = above
