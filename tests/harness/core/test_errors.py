import json
import os
import signal
import subprocess
import sys

import pytest

from harness.core import errors, seeds


def test_a_users_mistake_is_one_line_and_2(capsys):
    def main() -> int:
        raise errors.UserError("seeds must be positive,\n given \x1b[31m-1")

    assert errors.run(main) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err == "error: seeds must be positive, given \\x1b[31m-1\n"


def test_a_value_error_of_our_own_code_is_a_users_mistake(capsys):
    def main() -> int:
        seeds.streams(-1)
        return 0

    assert errors.run(main) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_value_error_from_a_library_keeps_its_traceback():
    with pytest.raises(ValueError, match="Expecting value"):
        errors.run(lambda: json.loads("nonsense"))


def test_the_code_of_main_is_returned_and_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert errors.run(lambda: 1) == 1
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


SLEEPER = """
import sys, time
from harness.core import errors
def main():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaned", flush=True)
    return 0
sys.exit(errors.run(main))
"""


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_unwind_and_give_their_codes(signum, code):
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == "cleaned\n"
    assert "run the same command again" in err
    assert "Traceback" not in err


def test_a_closed_pipe_is_quiet():
    program = (
        "import sys\nfrom harness.core import errors\n"
        "def main():\n    print('x' * 1_000_000)\n    return 0\nsys.exit(errors.run(main))"
    )
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    os.close(reader)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 141
    assert err == b""
