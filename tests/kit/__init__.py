"""What tests share: the tiny model, and the one place that reaches into the package's private attributes."""
