"""The training loop of all networks: fixed steps, a checkpoint every two minutes, the same result when resumed.

Batches and all other random draws depend only on the seed and the step, so an interrupted run continues as if it had
not been interrupted.
"""

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from barkfast.weights import open_model

from .work import Work, replacing

SAVE_EVERY_S = 120
LONGEST_STEP_S = 60
Loss = tuple[Tensor, dict[str, float]]


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train; the rate rises for `warmup` steps, holds, then falls over the last part."""

    name: str
    steps: int
    rate: float
    warmup: int = 100
    fall: float = 0.5  # share of the steps over which the rate falls to `floor` of itself
    floor: float = 0.02
    seed: int = 2023
    log_every: int = 50
    test_every: int = 400

    def rate_at(self, step: int) -> float:
        left = (self.steps - step) / (self.steps * self.fall)
        return self.rate * min(1.0, (step + 1) / self.warmup, max(self.floor, left))


def make_optimizers(model: nn.Module, rate: float, device: str, muon: bool = True) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, which learn much faster with it, and AdamW for everything else.

    Without `muon`, AdamW for all. Muon computes in bfloat16, which is slow if the CPU has no instructions for it.
    """
    inner, outer, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if muon and parameter.ndim == 2 and ".h." in name:
            inner.append(parameter)
        else:
            (outer if parameter.ndim > 1 else vectors).append(parameter)
    adam = torch.optim.AdamW(
        [{"params": outer, "weight_decay": 0.03}, {"params": vectors, "weight_decay": 0.0}],
        lr=rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    if not inner:
        return [adam]
    # Its steps are scaled to the size of AdamW's, so both use one rate.
    muon = torch.optim.Muon(inner, lr=rate, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    return [adam, muon]


class Run:
    """A network in training: its optimizers, its step, and its checkpoint `NAME.pt`."""

    def __init__(
        self,
        work: Work,
        plan: Plan,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
    ) -> None:
        self.work, self.plan, self.model, self.optimizers = work, plan, model, optimizers
        self.step, self.seconds = 0, 0.0
        self.path = work.path(f"{plan.name}.pt")
        if self.path.is_file():
            state = torch.load(self.path, map_location=work.device)
            model.load_state_dict(state["model"])
            for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }
        with replacing(self.path) as partial:
            torch.save(state, partial)

    def train(self, loss: Callable[[int], Loss], test: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Train to the plan's end; `loss(step)` draws its own batch, `test()` is logged every `test_every` steps."""
        plan = self.plan
        log = open(self.work.path(f"logs/{plan.name}.jsonl"), "a", encoding="utf-8")  # noqa: SIM115
        sums: dict[str, list[float]] = {}
        facts: dict[str, float] = {}
        saved = started = time.time()
        stops: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: stops.append(number))
        while self.step < plan.steps:
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = plan.rate_at(self.step)
            torch.manual_seed(plan.seed * 1_000_003 + self.step)
            value, parts = loss(self.step)
            value.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            # Skip a batch without a finite gradient: its step would destroy the weights.
            if norm < float("inf"):
                for optimizer in self.optimizers:
                    optimizer.step()
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            self.step += 1
            for name, part in (parts | {"norm": float(norm)}).items():
                sums.setdefault(name, []).append(part)
            now = time.time()
            # Time beyond the longest possible step was a pause of the machine, not work.
            self.seconds, started = self.seconds + min(now - started, LONGEST_STEP_S), now
            done = self.step == plan.steps
            if self.step % plan.log_every == 0 or done:
                entry = {"step": self.step, "seconds": round(self.seconds, 1)}
                entry |= {name: round(float(np.mean(values)), 4) for name, values in sums.items()}
                sums = {}
                if self.step % plan.test_every == 0 or done:
                    self.model.eval()
                    with torch.no_grad():
                        facts = {f"test_{name}": round(v, 4) for name, v in test().items()}
                    self.model.train()
                    entry |= facts
                log.write(json.dumps(entry) + "\n")
                log.flush()
                print(entry, flush=True)
            if now - saved > SAVE_EVERY_S or done or stops:
                self.save()
                saved = now
            if stops and not done:
                raise SystemExit(f"{plan.name}: told to stop, saved at step {self.step}")
        log.close()
        return facts | {"steps": self.step, "training_seconds": round(self.seconds)}


def load_trained(work: Work, name: str, model: nn.Module) -> nn.Module:
    """Load the last checkpoint of run `name` into the model."""
    model.load_state_dict(torch.load(work.path(f"{name}.pt"), map_location=work.device)["model"])
    return model


def load_exported(work: Work, stage: str, model: nn.Module) -> nn.Module:
    """Load the weights of the exported model that the work starts from; `stage` is text, coarse or fine."""
    weights = open_model(work.start).stage(stage)
    model.load_state_dict({key: tensor.float() for key, tensor in weights.tensors.items()})
    return model


def batches(lengths: np.ndarray, budget: int, seed: int) -> Callable[[int], np.ndarray]:
    """A function from step to the item numbers of its batch: items of similar length, together about `budget` units.

    Every epoch has another order, drawn from the seed and the epoch.
    """
    cache: dict[int, list[np.ndarray]] = {}

    def epoch(number: int) -> list[np.ndarray]:
        if number not in cache:
            rng = np.random.default_rng([seed, number])
            # Noise on the lengths, so that the same items do not always share a batch.
            order = np.argsort(lengths * rng.uniform(0.9, 1.1, len(lengths)), kind="stable")
            found, at = [], 0
            while at < len(order):
                n = max(1, int(budget // max(1, lengths[order[min(at + 8, len(order) - 1)]])))
                found.append(order[at : at + n])
                at += n
            cache.clear()
            cache[number] = [found[i] for i in rng.permutation(len(found))]
        return cache[number]

    def pick(step: int) -> np.ndarray:
        number = 0
        # Epochs differ a little in their number of batches.
        while step >= (n := counts.setdefault(number, len(epoch(number)))):
            step -= n
            number += 1
        return epoch(number)[step]

    counts: dict[int, int] = {}
    return pick


def initialize(model: nn.Module, n_layer: int) -> None:
    """GPT-2's initialization: 0.02, less for the matrices that write to the residual stream."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.02 / (2 * n_layer) ** 0.5 if name.endswith("c_proj.weight") else 0.02)
