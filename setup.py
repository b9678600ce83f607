"""The one part that pyproject.toml cannot say: the optional C extension.

`RNNPRUNE_NO_NATIVE=1` leaves it out. A compiler that is missing or fails leaves it out too (`optional`), with a
warning that pip shows only with -v; the engine then reports itself unavailable, with the reason.
"""

import os
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("rnnprune/kernels/native")
WINDOWS = os.name == "nt"  # MSVC has no vector extensions; a build with clang-cl or MinGW is not provided yet


def native_extension() -> Extension:
    """rnnprune.kernels._native, one file for Python 3.11 and every later version."""
    return Extension(
        "rnnprune.kernels._native",
        sources=sorted(str(path) for path in SOURCES.glob("*.c")),
        depends=sorted(str(path) for path in SOURCES.glob("*.h")),
        extra_compile_args=["-O3", "-std=gnu11", "-ffp-contract=fast", "-Wall", "-Wextra", "-Wno-psabi", "-pthread"],
        extra_link_args=["-pthread"],
        py_limited_api=True,
        optional=True,
    )


setup(
    ext_modules=[] if WINDOWS or os.environ.get("RNNPRUNE_NO_NATIVE") == "1" else [native_extension()],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
