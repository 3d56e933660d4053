"""Trains the heads of `shardwise bench train` with Python's LightGBM; plan on standard input, times on standard output.

Times are of the processor, all threads, in ms.
"""

import glob
import json
import sys
import time

import lightgbm
import numpy
import polars

plan = json.load(sys.stdin)
laps = dict.fromkeys(["reading_ms", "choosing_ms", "binning_ms", "growing_ms", "testing_ms"], 0.0)
since = time.process_time()


def lap(name):
    global since
    now = time.process_time()
    laps[name] += (now - since) * 1e3
    since = now


# Reading: only the columns and rows that are needed, and no table beside the matrix afterwards.
files = sorted(glob.glob(glob.escape(plan["dataset"]) + "/date=*/part-*.parquet"))
labels = ["known_at", "block", "exec_ms", "queue_ms", "total_ms", "cold", "ok"]
frame = (
    polars.scan_parquet(files, hive_partitioning=False)
    .filter(polars.col("chosen") & ~polars.col("censored"))
    .select(plan["features"] + labels)
    .collect()
)
known_at = frame["known_at"].cast(polars.Int64).to_numpy()
block = frame["block"].to_numpy()
exec_ms, queue_ms, total_ms = (frame[name].to_numpy() for name in ["exec_ms", "queue_ms", "total_ms"])
cold, ok = (frame[name].fill_null(False).to_numpy() for name in ["cold", "ok"])
X = frame.select(plan["features"]).to_numpy(order="c")
assert X.dtype == numpy.float32 and X.flags.c_contiguous
del frame
lap("reading_ms")

within = lambda bounds: (known_at >= bounds[0]) & (known_at < bounds[1])
is_test = within(plan["test"])
is_train = within(plan["train"]) & ~is_test & (block > 0)
is_executed = ok & numpy.isfinite(exec_ms) & (exec_ms > 0)


def places(fit):
    """Training rows in the order of time, evenly thinned, and test rows."""
    train = numpy.flatnonzero(is_train & fit)
    train = train[numpy.argsort(known_at[train], kind="stable")]
    taken = min(len(train), plan["max_rows"])
    return train[numpy.arange(taken) * len(train) // taken], numpy.flatnonzero(is_test & fit)


def lesson(head):
    """Places of training and test rows, and the labels of each."""
    if head == "exec":
        train, test = places(is_executed & ~cold)
        ln_ms = lambda chosen: numpy.log(exec_ms[chosen].astype(numpy.float64))
        default = round(float(ln_ms(train).mean()), 6)

        def label(chosen):
            offset = X[chosen, plan["features"].index(plan["offset_feature"])].astype(numpy.float64)
            return ln_ms(chosen) - numpy.where(numpy.isfinite(offset), offset, default)

    elif head == "cold":
        train, test = places(is_executed)
        label = lambda chosen: cold[chosen].astype(numpy.float64)
    elif head == "wait":
        train, test = places(is_executed | (queue_ms > 0))
        label = lambda chosen: numpy.log1p(numpy.clip(queue_ms[chosen].astype(numpy.float64), 0, plan["max_queue_ms"]))
    elif head == "latency":
        train, test = places(numpy.ones(len(X), bool))

        def label(chosen):
            ms = total_ms[chosen].astype(numpy.float64)
            ms = numpy.where(ok[chosen] & (ms < plan["timeout_ms"]), ms, plan["timeout_ms"])
            return numpy.log(numpy.maximum(ms, plan["min_latency_ms"]))

    else:
        raise ValueError(f"no such head: {head}")
    return train, label(train), test, label(test)


def fit(parameters, rows, y, trees, late=None):
    """As many trees as the late rows gain from, or that many; the bins are made with LightGBM's defaults."""
    data = lightgbm.Dataset(rows, y, params={"verbosity": -1}).construct()
    valid, stop = [], []
    if late is not None:
        valid = [lightgbm.Dataset(*late, reference=data, params={"verbosity": -1}).construct()]
        stop = [lightgbm.early_stopping(plan["patience"], verbose=False)]
    lap("binning_ms")
    parameters = dict(parameters, num_iterations=trees)
    booster = lightgbm.train(parameters, data, valid_sets=valid, callbacks=stop)
    # A training that was not stopped keeps all its trees.
    stopped = late is not None and booster.current_iteration() < trees
    grown = booster.best_iteration if stopped else booster.current_iteration()
    lap("growing_ms")
    return booster, max(grown, 1)


def learn(head, parameters):
    train, y, test, truth = lesson(head)
    rows = X[train]
    early = int(len(train) * (1 - plan["validation_share"]))
    lap("choosing_ms")
    _, trees = fit(parameters, rows[:early], y[:early], plan["trees"], (rows[early:], y[early:]))
    booster, trees = fit(parameters, rows, y, trees)
    del rows
    predicted = booster.predict(X[test], num_threads=1)
    if parameters["objective"] == "binary":
        tiny = 1e-12
        error = -numpy.mean(truth * numpy.log(numpy.maximum(predicted, tiny)) + (1 - truth) * numpy.log(numpy.maximum(1 - predicted, tiny)))
    else:
        error = numpy.sqrt(numpy.mean((truth - predicted) ** 2))
    lap("testing_ms")
    return {"head": head, "train_rows": len(train), "test_rows": len(test), "trees": trees, "error": round(float(error), 6)}


def peak_mib():
    """Of this process alone: `ru_maxrss` keeps that of whoever started it."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None


heads = [learn(it["head"], it["parameters"]) for it in plan["heads"]]
engine = f"LightGBM {lightgbm.__version__} in Python {sys.version.split()[0]}"
print(json.dumps({"engine": engine, **laps, "peak_mib": peak_mib(), "heads": heads}))
