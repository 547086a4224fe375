"""Triton's interpreter without work that it repeats, which takes half of its time for kernels as small as in tests."""

from types import ModuleType
from typing import Any

import numpy as np


def avoid_repetition(interpreter: ModuleType) -> None:
    """Change triton.runtime.interpreter so that it prepares the language once per launch.

    As it is, it replaces all functions of triton.language by the same ones whenever one kernel function calls another,
    and makes its table of dtypes anew whenever it looks one up.
    """
    patch_language, language, look_up = interpreter._patch_lang, interpreter.tl, interpreter._get_np_dtype
    patched: set[int] = set()
    dtypes: dict[str, np.dtype] = {}

    class Scope:
        """What was replaced for a launch."""

        def __init__(self, scope: Any) -> None:
            self.scope = scope

        def restore(self) -> None:
            patched.clear()
            self.scope.restore()

    def patch_once(fn: Any) -> Scope | None:
        modules = {id(value) for value in fn.__globals__.values() if value is language or value is language.core}
        if modules and modules <= patched:
            return None
        patched.update(modules)
        return Scope(patch_language(fn))

    def look_up_once(dtype: Any) -> np.dtype:
        name = dtype.scalar.name
        if name not in dtypes:
            dtypes[name] = look_up(dtype.scalar)
        return dtypes[name]

    interpreter._patch_lang, interpreter._get_np_dtype = patch_once, look_up_once
