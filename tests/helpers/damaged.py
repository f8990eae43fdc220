"""Files that are no runs: cut, foreign, damaged or made to harm, and how they are refused."""

import os
import random
from pathlib import Path
from typing import Any

import pytest

from bench.runs.files import MAX_BYTES
from bench.runs.locate import read_runs
from bench.runs.reading import MAX_CASES, parse
from bench.runs.saved import MAX_PROCESSES
from sparse_models.errors import InputError
from tests.helpers.saved import facts, row, rows, saved, training, written


def flipped(content: bytes, seed: int) -> bytes:
    """Return bytes with up to four bits of them changed."""
    chance, changed = random.Random(seed), bytearray(content)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def is_sentence(text: str) -> bool:
    """Tell whether a text is one line that a terminal shows and does not obey."""
    return bool(text) and text.isprintable() and len(text) < 1000


def refused(content: bytes) -> str:
    """Return why `parse` refuses a file, which must be one line."""
    with pytest.raises(InputError) as caught:
        parse("run", content)
    assert is_sentence(str(caught.value))
    return str(caught.value)


def why(*asked: str, storage: Path | str = "nowhere") -> str:
    """Return why `read_runs` refuses what is asked for, of which each line must be one that can be shown."""
    with pytest.raises(InputError) as caught:
        read_runs(asked, str(storage))
    assert all(map(is_sentence, str(caught.value).split("\n")))
    return str(caught.value)


def changed(**fields: Any) -> bytes:
    """A file whose first row has some fields changed."""
    return written(saved(rows() | {FORWARD: row(**fields)}))


def doubled(name: str, *cases: dict[str, Any]) -> bytes:
    """A file in which several cases have one name."""
    whole = saved()
    whole["benchmarks"] += [{**whole["benchmarks"][0], "fullname": name, "extra_info": case} for case in cases]
    return written(whole)


CONTENT, FORWARD, MANY = written(saved()), next(iter(rows())), MAX_PROCESSES + 1
REFUSED = {
    "empty": b"", "space": b" \n", "array": b"[]", "null": b"null", "number": b"1", "object": b"{}", "nul": b"\0" * 4096,
    "binary": bytes(range(256)), "bom": b"\xef\xbb\xbf" + CONTENT, "utf16": CONTENT.decode().encode("utf-16"),
    "two": CONTENT + CONTENT, "trailing": CONTENT + b"x", "gzip": b"\x1f\x8b\x08" + CONTENT,
    "utf8": CONTENT.replace(b"forward-csr", b"\xff", 3), "surrogate": CONTENT.replace(b"c0ffee", b"\\ud800", 1),
    "no benchmarks": written(saved({})), "another project": written(saved({"test_x": {}, "test_y": {"threads": 1}})),
    "one row of another project": written(saved(rows() | {"test_x": {"python": "3.11"}})),
    "one name": doubled(FORWARD, row()), "one seed": doubled("t-seed0", training(0), training(0)),
    "one seed by two names": written(saved(rows() | {"t-seed0": training(0), "t-seed00": training(0)})),
    "an arm called as a case": written(saved({"t": row(), "t-seed0": training(0), "t-seed1": training(1)})),
    "a process twice": changed(process_numbers=[0, 1, 1]), "no process": changed(process_numbers=[], process_speedups=[]),
    "fewer numbers": changed(process_numbers=[0, 1]), "fewer seconds": changed(process_seconds=[1e-3]),
    "more speed-ups": changed(process_speedups=[1.0] * 4), "outside": changed(speedup=3.0),
    "upside down": changed(speedup_low=2.1), "sparsity": changed(sparsity=1.5),
    "batch": changed(batch=-1), "large": changed(nnz=2**53),
    "verdict": changed(verdict="fine"),
    "many processes": changed(**{name: [*range(1, MANY + 1)] for name in row() if "process_" in name}),
    "many seeds": written(saved({f"t-seed{seed}": training(seed) for seed in range(MANY)})),
    "many cases": written(saved({str(number): {} for number in range(MAX_CASES + 1)})),
    "long name": written(saved({"x" * 10_000_000: row()})), "long layer": changed(layer="x" * 10_000_000),
    "long verdict": changed(verdict="\x1b" * 10_000_000), "long commit": written(saved(commit_info={"id": "c" * 301})),
    "commit": written(saved(commit_info={"id": "\x1b[2J"})), "time": written(saved(datetime="2026\n")),
    "device": written(saved(machine=facts(bounds={"<b>": {"dense_gflops": 1.0}}))), "machine": written(saved(machine=[])),
    "bounds": written(saved(machine=facts(bounds={"cpu": {"dense_gflops": 0}}))),
}  # fmt: skip


def spoil(folder: Path) -> int:
    """Fill a folder with what is no run under the names of runs; return how many."""
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "pipe.json")
    for name, target in {"zero": "/dev/zero", "dangling": "nowhere", "loop": "loop.json"}.items():
        (folder / f"{name}.json").symlink_to(target)
    with (folder / "sparse.json").open("wb") as file:
        file.truncate(2**40)
    (folder / "just.json").write_bytes(CONTENT.ljust(MAX_BYTES + 1))
    if os.geteuid() != 0:  # root reads all
        (folder / "closed.json").write_bytes(CONTENT)
        (folder / "closed.json").chmod(0)
    for name, content in (REFUSED | {"\x1b[31m\n": b"", os.fsdecode(b"\xff"): b"[]"}).items():
        (folder / f"{name}.json").write_bytes(content)
    return len(list(folder.iterdir()))
