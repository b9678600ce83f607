"""What a file is, by its first bytes and, for a zip, by the names of its members; and how each refusal reads.

Nothing is unpickled or imported here. Every refusal says what was found, why it is not read, and what to run instead.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from rnnprune.errors import InputRefused, UsageError, printable
from rnnprune.formats.run_folder import STAGE

Kind = Literal["torch zip", "legacy pickle", "safetensors", "npz"]

HEAD_BYTES = 512
PICKLE_SCAN_BYTES = 2**18
MAX_NAME = 1000  # characters of one tensor's name
MAX_DIRECTORY = 2**23  # bytes of a zip's directory, some 100,000 members
MAX_PICKLE = 2**26  # bytes of the pickle in a torch zip, which is read instruction by instruction
MAX_NAMES = 20_000  # names in one file, aliases too; a large recurrent model has a few thousand
LONGEST_REASON = 2000
LEGACY_TORCH_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # pickled LONG1 0x1950a86a20f9469cfc6c, then STOP

COPY_AGAIN = "copy or download it again"
_SAVE = "torch.save({}, 'weights.pt')"
_TRUSTED_PICKLE = (
    "only where you trust its origin, run `model = torch.load({name!r}, weights_only=False)` beside the code that made "
    "it, then `torch.save(model.state_dict(), 'weights.pt')`, and give that file"
)
_FOREIGN_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file (Keras, h5py)",
        "read its arrays with h5py, transpose the kernels and reorder the gates to torch's (LSTM i f g o, GRU r z n), "
        "and save them with `numpy.savez('weights.npz', **arrays)` under torch's names",
    ),
    (
        b"\x93NUMPY",
        "a single numpy array without names",
        "save all arrays by name: `numpy.savez('weights.npz', **arrays)`",
    ),
    (b"\x1f\x8b", "a gzip file", "unpack it with `gunzip` first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it first"),
    (b"\xfd7zXZ\x00", "an xz file", "unpack it with `unxz` first"),
    (b"BZh", "a bzip2 file", "unpack it with `bunzip2` first"),
    (b"GGUF", "a GGUF file", "give the torch checkpoint that it was converted from"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull` where it lies"),
)


class Refused(ValueError):
    """What was found and what to do about it; the caller adds the file's name."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"{found}; {remedy}")
        self.found, self.remedy = found, remedy


def refusal(path: Path, found: str, remedy: str) -> InputRefused:
    """`path: found; remedy` as the error to raise; what was found may quote the file."""
    return InputRefused(f"{path}: {printable(found, LONGEST_REASON)}; {remedy}")


def too_many_names(count: int) -> Refused | None:
    """The error to raise for so many names, or None."""
    return Refused(f"{count} names, the limit is {MAX_NAMES}", "save one model alone") if count > MAX_NAMES else None


def shortened(texts: Iterable[str]) -> str:
    """The first five texts, fit to be printed, and how many more."""
    listed = list(texts)
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(printable(text) for text in listed[:5]) + more


def detect_kind(path: Path) -> Kind:
    """The kind of a checkpoint that can be read, or InputRefused; UsageError when there is no such file."""
    head = _head(path)
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return _kind_of_zip(path)
    if head[8:9] == b"{" and head[5:8] == bytes(3):  # a header of 640 bytes begins as a pickle of protocol 2 does
        return "safetensors"
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        if LEGACY_TORCH_MAGIC in head[:32]:
            return "legacy pickle"
        raise _plain_pickle(path)
    if head[8:9] == b"{" and not _is_text(head[:8]):
        return "safetensors"
    raise _foreign(path, head)


def storage_sizes(path: Path) -> set[int]:
    """The sizes in bytes of the storages in a torch zip, as its directory lists them, and 0 for empty tensors."""
    with zipfile.ZipFile(path) as archive:
        return {0} | {member.file_size for member in archive.infolist() if "/data/" in member.filename}


def globals_named(pickled: bytes, limit: int = 1000) -> list[str]:
    """The `module.name` of everything a pickle would import, read opcode by opcode without running any.

    Best effort, for the text of a refusal only: a broken or cut pickle gives what came before the break.
    """
    found: list[str] = []
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in ("GLOBAL", "INST"):
                found.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
                found.append(f"{strings[-2]}.{strings[-1]}")
            elif isinstance(argument, str):
                strings = [*strings[-1:], argument]
            if len(found) >= limit:
                break
    except Exception:
        return found
    return found


def names_code(path: Path, name: str) -> InputRefused:
    """A pickle that imports `name`: a whole model, a class, or an attack; they look alike from here."""
    return refusal(
        path,
        f"its pickle names `{name}`, code that loading would import or run; only plain tensors are read",
        _TRUSTED_PICKLE.format(name=path.name),
    )


def unknown_protocol(path: Path) -> InputRefused:
    """A pickle of protocol 4 or 5: torch's safe unpickler knows the instructions of protocol 2 only."""
    command = f"torch.save(torch.load({path.name!r}, weights_only=False), 'weights.pt')"
    return refusal(
        path,
        "pickled with protocol 4 or 5, which torch's safe reader does not know",
        f"only where you trust its origin, save it with torch's own protocol: `{command}`",
    )


def _head(path: Path) -> bytes:
    try:
        if path.is_dir():
            if (path / STAGE).is_dir():
                raise refusal(path, "the folder of an unfinished run", "give the command that began it again to go on")
            raise refusal(path, "a folder, not a checkpoint", "give the file in it")
        if not path.exists():
            raise UsageError(f"{path}: there is no such file; check the path")
        if not path.is_file():
            raise refusal(path, "not a regular file", "copy its content into a file first")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from error
    if not head:
        raise refusal(path, "an empty file", COPY_AGAIN)
    return head


class _Directory(io.FileIO):
    """A zip of which only the directory is read, and that only where it is no larger than it may be."""

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, or Refused."""
        if size is not None and size > MAX_DIRECTORY:
            found = f"a zip whose directory takes {size} bytes, the limit is {MAX_DIRECTORY}"
            raise Refused(found, "save one model alone")
        return super().read(size)


def _kind_of_zip(path: Path) -> Kind:
    try:
        with _Directory(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except Refused as refused:
        raise refusal(path, refused.found, refused.remedy) from refused
    except Exception as error:  # a hostile directory can break zipfile in more ways than BadZipFile
        raise refusal(path, f"a truncated or damaged zip ({error})", COPY_AGAIN) from error
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise refusal(path, "a zip with two members of one name", "save the checkpoint again at its source")
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    _refuse_code_archives(path, names)
    if not any(re.fullmatch(r"[^/]+/data\.pkl", name) for name in names):
        shown = ", ".join(names[:3]) or "nothing"
        raise refusal(
            path, f"a zip that is no torch checkpoint (it holds {shown})", "unpack it and give the checkpoint"
        )
    if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
        raise refusal(
            path,
            "a torch checkpoint whose members are compressed or encrypted, which torch never writes",
            "save it again with `torch.save`",
        )
    pickled = max(member.file_size for member in members if member.filename.endswith("/data.pkl"))
    if pickled > MAX_PICKLE:
        found = f"a torch checkpoint whose pickle takes {pickled} bytes, the limit is {MAX_PICKLE}"
        raise refusal(path, found, "save the `state_dict()` alone")
    return "torch zip"


def _refuse_code_archives(path: Path, names: Sequence[str]) -> None:
    inner = {name.partition("/")[2] for name in names} | set(names)
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        command = _SAVE.format(f"torch.jit.load({path.name!r}).state_dict()")
        raise refusal(
            path, "a TorchScript archive, which carries code", f"only where you trust its origin, run `{command}`"
        )
    exported = {"archive_format", "serialized_exported_program.json", "models/model.json"}
    if exported & inner or any(name.startswith("models/") for name in inner):
        command = _SAVE.format(f"torch.export.load({path.name!r}).state_dict")
        raise refusal(path, "a .pt2 archive of torch.export", f"only where you trust its origin, run `{command}`")
    if ".data/extern_modules" in inner:
        raise refusal(path, "a torch.package archive, which carries code", "save the model's `state_dict()` instead")
    if "model.weights.h5" in inner:
        raise refusal(path, "a Keras archive", _FOREIGN_MAGIC[0][2])


_TENSOR_PARTS = ("torch.", "collections.")  # what any pickled tensor names; what else is named tells more


def _plain_pickle(path: Path) -> InputRefused:
    with path.open("rb") as file:
        named = globals_named(file.read(PICKLE_SCAN_BYTES), limit=1000)
    if named:
        return names_code(path, next((name for name in named if not name.startswith(_TENSOR_PARTS)), named[0]))
    return refusal(path, "a plain Python pickle, not a file of torch.save", "save the tensors with `torch.save`")


def _foreign(path: Path, head: bytes) -> InputRefused:
    for magic, found, remedy in _FOREIGN_MAGIC:
        if head.startswith(magic):
            return refusal(path, found, remedy)
    if head[257:262] == b"ustar":
        return refusal(
            path,
            "a tar archive (torch.save of before 2017, or a packed folder)",
            "unpack it, or load it with the torch of its time, and save the `state_dict()` again",
        )
    if head[4:8] == b"TFL3":
        return refusal(path, "a TensorFlow Lite model", "give the checkpoint that it was converted from")
    if re.match(rb"\x08[\x01-\x20][\x12\x1a\x22\x28\x32\x3a\x42]", head):
        return refusal(
            path,
            "it looks like an ONNX model",
            "give the torch checkpoint it was exported from, or save its initializers with `numpy.savez`",
        )
    if match := re.match(rb"c([\w.]+)\n([\w.]+)\n", head):
        return names_code(path, b".".join(match.groups()).decode())
    if _is_text(head):
        return refusal(path, f"a text file (it begins {head[:24]!r})", "give the checkpoint itself")
    return refusal(
        path,
        f"no kind of checkpoint known here (it begins {head[:8]!r})",
        "give a state dict saved with `torch.save`, a .safetensors or an .npz",
    )


def _is_text(data: bytes) -> bool:
    """Whether these bytes are printable UTF-8; a character cut at the end does not count against it."""
    text = data.decode("utf-8", errors="ignore")
    return len(text.encode()) >= len(data) - 3 and all(char.isprintable() or char in "\r\n\t\f" for char in text)
