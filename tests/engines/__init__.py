"""`vl run --on`: real engines where they can run here, and what is handed in for the others."""
