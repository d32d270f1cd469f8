"""How fast, side by side with what there was before: ``python -m benchmarks [NAME ...]``.

Speed is told as ratios of contenders that took turns in one process, on threads that are stated,
after they were seen to agree. Times in milliseconds belong to one machine on one day.
"""

#: Every comparison; each is a module of this package with ``run(effort)``.
BENCHMARKS = (
    "neighbours",
    "attention",
    "linear_attention",
    "recoupling",
    "published_speed",
    "single_point",
    "prediction",
    "training_step",
    "featurization",
)
