"""Benchmarks: workloads, live runs of both systems, reports."""
