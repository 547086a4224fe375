"""What is measured on a CPU: one module per section, each with `run(plan, record)` or `run(plan, record, part)`."""
