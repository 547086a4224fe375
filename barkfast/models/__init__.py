"""The networks in plain torch: the readable truth that every faster engine is compared with."""
