"""Whole clips beside the reference and transformers: the same weights, voice and length."""

import pytest

from barkfast.bench.backends import OURS, Backend, NotRun, Ours
from barkfast.bench.peers import PEERS, CompiledPeer
from barkfast.bench.workload import FULL_VOICE, Workload
from benchmarks.suites.measure import Measure
from benchmarks.suites.setting import Setting, list_engines

SECONDS, SMOKE_SECONDS = 5.0, 0.1


@pytest.mark.benchmark(group="clip beside peers")
@pytest.mark.parametrize("name", [OURS, *PEERS])
@pytest.mark.parametrize("voice", ["none", FULL_VOICE])
def test_clip(measure: Measure, setting: Setting, name: str, voice: str) -> None:
    """barkfast in the dtype that it chooses itself."""
    seconds = SMOKE_SECONDS if setting.smoke else SECONDS
    if setting.smoke and voice == FULL_VOICE:
        pytest.skip("one is enough for a smoke test")
    engine, _ = list_engines(setting)[0]
    case = Workload(setting.model, setting.device, engine=engine, voice=voice, seconds=seconds).resolve()
    if name == OURS:
        measure.check(case.engine, case.dtype)
    backend: Backend = Ours(case) if name == OURS else PEERS[name](case)
    if setting.smoke and isinstance(backend, CompiledPeer):
        # Traced as for the compiler, which itself would take longer than everything else.
        backend.backend = "eager"
    try:
        backend.load()
    except NotRun as reason:
        pytest.skip(str(reason))
    clips = []
    try:
        measure.time(
            lambda: clips.append(backend.speak(len(clips))),
            rounds=3 if name == OURS else 1,
            warm_up=1 if name == OURS else 0,
            backend=name,
            version=backend.version,
            dtype=backend.dtype,
            voice=voice,
        )
    finally:
        backend.close()
    if measure.median is not None:
        factor = measure.median / clips[-1].audio_s
        measure.benchmark.extra_info.update(audio_s=clips[-1].audio_s, real_time_factor=round(factor, 4))
