"""What tests share: the tiny model, small disks, and the one place that reaches into private attributes."""
