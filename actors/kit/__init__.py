"""The parts that every actor uses."""
