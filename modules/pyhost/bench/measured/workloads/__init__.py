"""The workloads, by what they are about."""
