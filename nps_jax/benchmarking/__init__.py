"""What the project's parts cost on this machine: time, and peak memory."""
