"""The console script as a process: signals, encodings, the shell's tab key, the version."""

import os
import pty
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version

import pytest

MAIN = "import sys; sys.argv[0] = 'swe'; from swe_cli.app import main; main()"
# A signal as soon as a module is looked for, whatever is imported then.
INTERRUPTED_AT = """
import importlib.abc, os, signal, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""
INTERRUPTED_AFTER = """
import os, signal, threading
from swe_cli.app import main
timer = threading.Timer({seconds}, os.kill, (os.getpid(), signal.SIGINT))
timer.daemon = True
timer.start()
"""


def process(*words, code="", **environment):
    """What ``swe`` and some words are as a process of their own."""
    return subprocess.Popen(
        [sys.executable, "-c", code + MAIN, *map(str, words)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def swe(*words, **more):
    child = process(*words, **more)
    stdout, stderr = child.communicate(timeout=120)
    return child.returncode, stdout, stderr


def test_the_version():
    assert swe("--version") == (0, f"swe {version('swe-cli')}\n", "")


# Ctrl-C


@pytest.mark.parametrize(
    "module",
    ["swe_cli.commands.report", "numpy", "pandas", "altair"],
)
def test_ctrl_c_while_modules_are_imported(module, own_run):
    code, stdout, stderr = swe("report", own_run.name, code=INTERRUPTED_AT.format(module=module))
    assert stderr == "Interrupted. What was finished is safe; the same command resumes.\n"
    assert code == 130
    assert "What was finished" not in stdout


@pytest.mark.parametrize("seconds", [0.3, 0.6, 0.9, 2.0])
def test_ctrl_c_at_any_moment_of_a_report(seconds, own_run):
    code, _, stderr = swe("report", own_run.name, code=INTERRUPTED_AFTER.format(seconds=seconds))
    ended = code, stderr.splitlines()[-1:]
    assert ended == (
        130,
        ["Interrupted. What was finished is safe; the same command resumes."],
    ) or (
        code == 0  # it was faster
    )
    assert "Traceback" not in stderr


# Encodings


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_report_is_printed_in_an_encoding_that_lacks_its_signs(encoding, own_run):
    code, stdout, stderr = swe("report", own_run.name, PYTHONIOENCODING=encoding)
    assert code == 0, stderr
    assert stdout.isascii()
    assert "swe" in stdout
    assert "?" not in stdout  # every sign has one that stands for it


# The tab key, by the protocol of the script that swe --install-completion writes


def completed(*words, **environment):
    """What bash is offered for the last of ``words``; it takes ``=`` for a word of its own."""
    protocol = {"_SWE_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(("swe", *words))}
    code, stdout, stderr = swe(**protocol, COMP_CWORD=str(len(words)), **environment)
    assert (code, stderr) == (0, "")
    return stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("pru",), ["prune"]),
        (("prune", "--rat"), ["--ratio", "--rate"]),
        (("prune", "criterion=sn"), ["criterion=snip"]),
        (("prune", "criterion", "=", "sn"), ["snip"]),
        (("sweep", "criteria", "=", "swe,wan"), ["swe,wanda"]),
        (("prune", "recovery.st"), ["recovery.steps="]),
        (("sweep", "experiment=dem"), ["experiment=demo"]),
        (("sweep", "dem"), []),
    ],
)
def test_commands_options_choices_and_keys_are_completed(words, offered):
    assert completed(*words) == offered


def test_bash_is_offered_every_choice_after_the_sign(tmp_path):
    assert {"swe", "magnitude", "wanda"} < set(completed("prune", "criterion", "="))
    own = tmp_path / "mine" / "criterion"
    own.mkdir(parents=True)
    (own / "zeal.yaml").write_text("_target_: mine.Zeal\n")
    assert completed("prune", "--config-dir", str(own.parent), "criterion=ze") == ["criterion=zeal"]


def test_runs_are_completed(own_run):
    offered = completed("prune", "train-", SWE_RESULTS_DIR=str(own_run.results))
    assert offered == [own_run.name]
    assert completed("train", "train-", SWE_RESULTS_DIR=str(own_run.results)) == []


# A terminal


def test_runs_are_watched_until_ctrl_c(own_run):
    """Redrawn on a terminal, again and again; leaving is no failure."""
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-c", MAIN, "runs", "--watch"])
    shown = b""
    with suppress(OSError):  # the terminal goes with its process
        while part := os.read(terminal, 4096):
            shown += part
            if shown.count(own_run.name.encode()) >= 2 and b"^C" not in shown:
                os.write(terminal, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, shown.decode()
    assert b"Traceback" not in shown


def test_without_a_terminal_nothing_is_watched(own_run):
    code, _, stderr = swe("runs", "--watch")
    assert (code, stderr.splitlines()[-1]) == (2, "Type: swe runs")
