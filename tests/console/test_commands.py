"""Laws of the command line as a whole: one option, one meaning; faults in one line; fast help."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest
import typer

from cluster import __main__ as program
from cluster.__main__ import COMMANDS, cli
from cluster.console import options
from cluster.errors import ConfigError
from cluster.files import ROOT

SHARED = (
    *("--url", "--api-key", "--json", "--seed", "--limit", "--config", "--set", "--device"),
    *("--timeout-s", "--warmup", "--gamma", "--block", "--max-tokens", "--plot"),
)
NARROWER = {("doctor", "--url"), ("simulate", "--seed"), ("route", "--plot")}
"""The same too; these say what stands in their place where they are left out."""


def group() -> Any:
    return typer.main.get_command(cli)


@pytest.mark.parametrize("name", SHARED)
def test_an_option_means_the_same_in_every_command(name: str):
    meanings = {
        option.help
        for command in group().commands.values()
        for option in command.params
        if name in option.opts and (command.name, name) not in NARROWER
    }
    assert len(meanings) == 1, meanings


def test_every_command_and_option_says_what_it_is():
    for command in group().commands.values():
        assert command.help, command.name
        for param in command.params:
            assert getattr(param, "help", None), (command.name, param.name)


def test_docs_list_the_commands_of_the_help():
    listed = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs" / "cli.md").read_text(), re.M)
    assert listed == [name for part in COMMANDS.values() for name in map(_name, part)]
    assert set(listed) == set(group().commands)


def _name(command: Any) -> str:
    return command.__name__.replace("_", "-")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["bench"], "Missing option '--prompts'. (see --help)"),
        (["top", "--nonsense"], "No such option"),
        (["nonsense"], "No such command 'nonsense'."),
        (["hop", "--count", "1"], "Invalid value for '--count'"),
        (["top", "--once", "--url", "localhost:8000"], "localhost:8000 is no URL; give one like"),
        (["doctor", "--url", "localhost:8000"], "localhost:8000 is no URL; give one like"),
        (["bench", "--prompts", "x", "--url", "http://h:99999"], "http://h:99999 is no URL; give"),
        (["bench", "--prompts", "x", "--url", "http://[::1"], "http://[::1 is no URL; give"),
        (["quality", "--prompts", "x", "--url", "http://"], "http:// is no URL; give"),
        (["bench", "--prompts", "x", "--out", "/"], "--out /: is a folder; give a file"),
        (["simulate", "x", "--plot", "x.xyz"], "--plot x.xyz: give a file that ends in .png"),
        (["serve", "--address", "127.0.0.1:1"], "127.0.0.1:1: Connection refused; is it"),
        (["serve", "--set", "nonsense=1"], "nonsense: no such key here"),
        (["serve", "--config", "/nowhere.yaml"], "config /nowhere.yaml: No such file"),
        (
            ["advise", "--fleet", "/nowhere", "--out", "/no/where"],
            "--out /no/where: no such folder",
        ),
    ],
)
def test_the_users_fault_is_one_line_and_exit_code_2(
    arguments: list[str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(sys, "argv", ["cluster", *arguments])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("viaserve: ")
    assert line in said.err


@pytest.mark.parametrize("where", ["_user_errors", "print"])
def test_ctrl_c_is_one_line_and_exit_code_130(
    where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """In a command, and while the errors are imported that a fault is compared with."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    arguments = ["version"] if where == "print" else ["advise", "/nowhere.json"]
    monkeypatch.setattr(sys, "argv", ["cluster", *arguments])
    monkeypatch.setattr(program, where, interrupt, raising=False)
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 130
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "viaserve: interrupted\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_one_line(unbuffered: str):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cluster", "version"],
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.stderr == "viaserve: stdout: No space left on device\n"
    assert done.returncode == 2


def test_help_imports_nothing_slow():
    """The engines take ten seconds to import: nobody is to wait for them to read the help."""
    code = (
        "import sys; sys.argv = ['cluster', '--help']\n"
        "import cluster.__main__ as m\n"
        "try: m.main()\n"
        "except SystemExit as e: assert not e.code\n"
        "slow = {'torch', 'ray', 'transformers', 'numpy', 'pydantic', 'httpx'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Serve and watch" in done.stdout


@pytest.mark.parametrize("text", ["", "0", "1,x", "-1", "1,,2"])
def test_numbers_are_told_apart_from_other_text(text: str):
    with pytest.raises(ConfigError, match="--loads"):
        options.numbers("--loads", text)


def test_numbers_keep_their_order_and_stand_once():
    assert options.numbers("--concurrency", "8,1,8") == (8, 1)


def test_a_result_goes_to_stdout_as_text_or_json_and_into_the_file_as_json(tmp_path, capsys):
    file = tmp_path / "found.json"
    options.give("a table", '{"a": 1}', json_only=False, out=file)
    options.give("a table", '{"a": 1}', json_only=True)
    assert capsys.readouterr().out == 'a table\n{"a": 1}\n'
    assert file.read_text() == '{"a": 1}\n'
