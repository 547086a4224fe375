"""Golden tokens made from the reference, and the tiny model they were made with."""
