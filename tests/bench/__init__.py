"""`barkfast bench`, `barkfast verify` and `barkfast profile`, and what they measure with."""
