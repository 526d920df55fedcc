"""
What the handler costs, measured against everything that people would use instead.

    python -m tests.benchmarks                       # everything, about 15 minutes
    python -m tests.benchmarks call durable          # two of them
    python -m tests.benchmarks --quick               # seconds each, to see that they run

Each module holds one benchmark, with one function: `run(report, options)`. What they share is in `core` (rounds,
tables, bounds), `load` (what is logged, and what goes on beside it) and `stores` (who keeps the log: ours, the others).

Rules for all of them: a comparison is made within one run, its cases taking turns; a rate is printed only after what
was logged was found again, counted; ratios come first; what is measured is told from what is assumed.
A bound that does not hold is a result. A log that cannot be found again is a failure: exit code 1.
"""
