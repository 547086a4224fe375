"""barkfast has the names, signatures, defaults and constants of `bark` and `bark.generation`."""

import inspect
import re

import pytest
import torch

import barkfast
import barkfast.generation

from .reference import Pair, import_reference

FUNCTIONS = [
    ("", "generate_audio"),
    ("", "text_to_semantic"),
    ("", "semantic_to_waveform"),
    ("", "save_as_prompt"),
    ("", "preload_models"),
    ("generation", "preload_models"),
    ("generation", "generate_text_semantic"),
    ("generation", "generate_coarse"),
    ("generation", "generate_fine"),
    ("generation", "codec_decode"),
    ("generation", "load_model"),
    ("generation", "load_codec_model"),
    ("generation", "clean_models"),
    ("generation", "_tokenize"),
    ("generation", "_detokenize"),
    ("generation", "_normalize_whitespace"),
    ("generation", "_load_history_prompt"),
    ("generation", "_grab_best_device"),
]
# Locations of the reference's own files, of no use to a caller.
INNER = {"CUR_PATH", "REMOTE_MODEL_PATHS"}


def modules(name: str) -> tuple[object, object]:
    bark, generation = import_reference()
    return (generation, barkfast.generation) if name == "generation" else (bark, barkfast)


@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
def test_signatures_begin_as_the_reference_does(module: str, name: str) -> None:
    reference, ours = (inspect.signature(getattr(m, name)).parameters for m in modules(module))
    positional = [p for p in ours.values() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert [(p.name, p.default) for p in positional] == [(p.name, p.default) for p in reference.values()]
    added = [p for p in ours.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    assert all(p.default is not inspect.Parameter.empty for p in added)


def test_constants_have_the_reference_s_values() -> None:
    reference, ours = modules("generation")
    plain = (bool, int, float, list, set)
    constants = {n: v for n, v in vars(reference).items() if n.isupper() and n not in INNER and isinstance(v, plain)}
    assert len(constants) >= 19
    differing = {n: (v, getattr(ours, n, "absent")) for n, v in constants.items() if getattr(ours, n, "absent") != v}
    assert not differing


def test_the_package_exports_what_bark_exports() -> None:
    bark, _ = import_reference()
    exported = [n for n in vars(bark) if not n.startswith("_") and not inspect.ismodule(getattr(bark, n))]
    assert set(exported) <= set(barkfast.__all__)


def test_progress_bars_are_the_reference_s(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    """Semantic and coarse show a bar unless silent, fine only on request; the bars end on the same counts.

    One exception: without an end token the reference's semantic bar omits the last token, and ours does not.
    """
    endings = []
    for generation in (pair.reference, pair.barkfast):
        torch.manual_seed(3)
        semantic = generation.generate_text_semantic("Hello", max_gen_duration_s=1.0, allow_early_stop=False)
        coarse = generation.generate_coarse(semantic)
        generation.generate_fine(coarse, silent=False)
        shown = capsys.readouterr().err
        endings.append(re.findall(r"100%\|[^|]*\| (\d+/\d+)", shown))
        generation.generate_text_semantic("Hello", max_gen_duration_s=0.1, silent=True)
        generation.generate_fine(generation.generate_coarse(semantic[:20], silent=True))
        assert capsys.readouterr().err == ""
    reference, ours = (list(dict.fromkeys(ending)) for ending in endings)
    assert (reference[0], ours[0]) == (f"{len(semantic) - 1}/{len(semantic) - 1}", f"{len(semantic)}/{len(semantic)}")
    assert ours[1:] == reference[1:]
    assert len(ours) == 3
