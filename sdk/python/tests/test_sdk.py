"""Runs on the standard library alone: ``PYTHONPATH=src python3 -m unittest discover -s tests``."""

import os
import subprocess
import sys
import tempfile
import textwrap
import unittest

from metaparticle import OptionError, _options, _run

SRC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src")

# Stands in for the binary: prints the arguments it was given.
FAKE = "#!/bin/sh\nfor a in \"$@\"; do echo \"$a\"; done\n"


def run_program(text, in_container=None):
    with tempfile.TemporaryDirectory() as folder:
        program, fake = os.path.join(folder, "prog.py"), os.path.join(folder, "fake")
        with open(program, "w") as out:
            out.write(textwrap.dedent(text))
        with open(fake, "w") as out:
            out.write(FAKE)
        os.chmod(fake, 0o755)
        env = dict(os.environ, PYTHONPATH=SRC, SHIPWAY_BIN=fake)
        env["METAPARTICLE_IN_CONTAINER"] = in_container or "false"
        done = subprocess.run(
            [sys.executable, program, "one", "two"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder
        )
        return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode()


class Decorators(unittest.TestCase):
    def test_the_seed_form_hands_the_program_over(self):
        code, lines, _ = run_program(
            """
            from metaparticle import containerize
            @containerize('docker.io/me', options={'name': 'web', 'publish': True, 'replicas': 3, 'ports': [8080]})
            def main():
                print('called')
            main()
            """
        )
        self.assertEqual(code, 0)
        self.assertEqual(lines[0], "run")
        self.assertNotIn("called", lines)
        text = " ".join(lines)
        for part in ("--name web", "--replicas 3", "--repository docker.io/me", "--publish", "--port 8080"):
            self.assertIn(part, text)
        self.assertEqual(lines[-2:], ["one", "two"])

    def test_metaparticles_own_form_means_the_same(self):
        _, lines, _ = run_program(
            """
            from metaparticle_pkg import Containerize
            @Containerize(package={'repository': 'me', 'name': 'web'}, runtime={'replicas': 2, 'ports': [80]})
            def main():
                print('called')
            main()
            """
        )
        self.assertIn("--name web --replicas 2", " ".join(lines))

    def test_inside_a_container_the_function_is_called(self):
        _, lines, _ = run_program(
            """
            from metaparticle import containerize
            @containerize('me')
            def main(word):
                print('called', word)
            main('x')
            """,
            in_container="1",
        )
        self.assertEqual(lines, ["called x"])

    def test_an_option_that_cannot_be_honoured_is_named(self):
        code, _, err = run_program(
            """
            from metaparticle import containerize
            @containerize('me', options={'name': 'web', 'jobSpec': {'iterations': 3}})
            def main():
                pass
            main()
            """
        )
        self.assertEqual(code, 1)
        self.assertIn("jobSpec", err)


class Options(unittest.TestCase):
    def test_bad_values_are_refused(self):
        for bad in ({"ports": ["x"]}, {"ports": [0]}, {"replicas": -1}, {"name": "No_Name"}, {"nope": 1}):
            with self.assertRaises(OptionError):
                _options.from_repository_and_options("me", bad)

    def test_the_name_defaults_to_the_folder(self):
        self.assertTrue(_options.from_repository_and_options("me", {}).name)

    def test_the_environment_decides_whether_this_is_a_container(self):
        before = os.environ.get("METAPARTICLE_IN_CONTAINER")
        try:
            for value, expected in (("true", True), ("1", True), ("0", False), ("False", False)):
                os.environ["METAPARTICLE_IN_CONTAINER"] = value
                self.assertEqual(_run.in_container(), expected)
        finally:
            os.environ.pop("METAPARTICLE_IN_CONTAINER")
            if before is not None:
                os.environ["METAPARTICLE_IN_CONTAINER"] = before


if __name__ == "__main__":
    unittest.main()
