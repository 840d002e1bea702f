"""Measures pyhost against the standard library of python3 on this machine: `pyhost -m pyhost.bench --help`.

Each workload runs in both programs, in alternation, in one run: the same script with the same data.  What is measured
lies in `measured/`, which is plain Python that knows nothing of pyhost; everything else here starts it and reports.
"""
