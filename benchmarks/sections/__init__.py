"""What is measured: one module per section, each with `run(plan, record)` or `run(plan, record, part)`."""
