"""Which model stands for which in a smoke test."""

from benchmarks.plan import Plan


def model_size(plan: Plan, name: str) -> str:
    """The size that is asked for; the smallest in a smoke test."""
    return "nano" if plan.smoke else name
