"""torch datasets: what a training loop gets, and what it waits for."""
