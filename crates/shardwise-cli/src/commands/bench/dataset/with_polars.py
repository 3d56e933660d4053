# The joins and windows of `shardwise dataset build` in lazy polars on its streaming engine: what its expressions can say of a
# dataset's columns.
#
# Left out, which is in its favour, is what `with_duckdb.py` leaves out: moving means, rates that decay, breakers, what is pending by
# the forecast of its time, and three of the four passes of the service table. The rows stay in any order and go into one file.
import json, math, sys
import polars as pl
from polars import col, lit, when

plan = json.loads(sys.argv[1])
history = plan["history"]
read = lambda table: pl.scan_parquet(f"{history}/{table}/date=*/*.parquet", hive_partitioning=False).with_columns(
    ns=col("known_at").dt.epoch("ns"))
block = lambda ns: (ns // plan["block_ns"] - plan["first_block"]).clip(lower_bound=0)
number = lambda value: value.cast(pl.Float32)

# Which decisions have rows for all candidates, by the hash of their ids (`combine_keys`); products wrap around.
u64 = lambda value: lit(value, dtype=pl.UInt64)
shifted = lambda x, by: x // u64(1 << by)
mixed = lambda x: x ^ shifted(x, 33)
def is_sampled(id):
    x = (id * u64(1 << 29)) ^ shifted(id, 35) ^ u64(plan["salt"])
    x = mixed(mixed(mixed(x) * u64(0xFF51AFD7ED558CCD)) * u64(0xC4CEB9FE1A85EC53))
    return shifted(x, 11).cast(pl.Float64) < plan["candidate_share"] * 2.0**53

decisions = read("decisions").drop("logged_shards", "logged_features")
outcomes = read("outcomes")
reports = read("shard_reports").sort("ns", "sequence").with_columns(
    load=pl.max_horizontal("cpu", "memory", (q := number(col("queue_len")) / col("cores")) / (q + 4.0)),
    measured_at=col("event_at").dt.epoch("ns")).collect().lazy()
market = read("market").sort("ns", "sequence").select("ns", "volatility_bp", "trend_bp")
shards = reports.select("shard").unique()

# Distances.
topology = json.load(open(history + "/topology.json"))
regions = topology["regions"]
rtt = pl.LazyFrame([(a, b, topology["rttMs"][i * len(regions) + j]) for i, a in enumerate(regions) for j, b in enumerate(regions)],
    schema={"a": pl.String, "b": pl.String, "ms": pl.Float32}, orient="row")
exchanges = pl.LazyFrame(topology["exchanges"], schema={"exchange": pl.String, "exchange_region": pl.String}, orient="row")

# What the fleet said as a whole, after each report.
fleet = (
    reports.select("ns").unique().join(shards, how="cross").sort("ns")
    .join_asof(reports.select("ns", "shard", "load", "healthy"), on="ns", by="shard", check_sortedness=False)
    .drop_nulls("load").with_columns(wide=col("load").cast(pl.Float64))
    .group_by("ns").agg(load_mean=col("wide").mean(), load_max=col("load").max(),
        load_variance=((col("wide") ** 2).mean() - col("wide").mean() ** 2).clip(lower_bound=0), n_healthy=col("healthy").sum())
    .sort("ns")
)

# What history taught of service times before each block: sums that grow from block to block, shrunken.
x, y = col("data_complexity").cast(pl.Float64).log(), col("exec_ms").cast(pl.Float64).log()
warm = ~col("cold")
cells = (
    outcomes.filter(col("error_class").is_null(), col("exec_ms") > 0).select("decision_id", "exec_ms", "cold", cell_block=block(col("ns")))
    .join(decisions.select("decision_id", "function", "protocol", "event_type", "trading_pair", "shard", "data_complexity"), on="decision_id")
    .group_by("cell_block", "function", "protocol", "event_type", "trading_pair", "shard")
    .agg(n=warm.sum().cast(pl.Float64), y=y.filter(warm).sum(), x=x.filter(warm).sum(), xx=(x * x).filter(warm).sum(),
        xy=(x * y).filter(warm).sum(), n_cold=col("cold").sum(), cold_ms=col("exec_ms").cast(pl.Float64).filter(col("cold")).sum())
    .collect(engine="streaming").lazy()
)
blocks = decisions.select(block=block(col("ns"))).unique().filter(col("block") > 0).collect(engine="streaming").lazy()
sums = lambda *by: (
    blocks.join_where(cells, col("cell_block") < col("block")).group_by("block", *by)
    .agg(col("n", "y", "x", "xx", "xy", "n_cold", "cold_ms").sum()).filter(col("n") > 0))
pairs = sums("function", "protocol", "shard")
slope = (col("xy").sum() - (col("x") * col("y") / col("n")).sum() + 0.6 * 50) / (col("xx").sum() - (col("x") ** 2 / col("n")).sum() + 50)
whole = pairs.group_by("block").agg(slope=slope, mean=(col("y").sum() - slope * col("x").sum()) / col("n").sum())
left = col("y") - col("slope") * col("x")
of_function = sums("function").join(whole, on="block").select("block", "function", "n_cold", "cold_ms", "slope", "mean",
    function_effect=(left - col("n") * col("mean")) / (col("n") + 1))
of_shard = sums("shard").join(whole, on="block").select("block", "shard", shard_alone=(left - col("n") * col("mean")) / (col("n") + 2))
of_protocol_shard = (sums("protocol", "shard").join(whole, on="block").join(of_shard, on=["block", "shard"])
    .select("block", "protocol", "shard", for_protocol=(left - col("n") * (col("mean") + col("shard_alone"))) / (col("n") + 20)))
of_pair = (
    pairs.join(of_function.select("block", "function", "function_effect", "slope", "mean"), on=["block", "function"])
    .join(of_shard, on=["block", "shard"]).join(of_protocol_shard, on=["block", "protocol", "shard"])
    .with_columns(shard_effect=col("shard_alone") + col("for_protocol"))
    .select("block", "function", "protocol", "shard", "shard_effect", pair_n="n",
        pair_effect=(left - col("n") * (col("mean") + col("function_effect") + col("shard_effect"))) / (col("n") + 30))
).collect(engine="streaming").lazy()
category = lambda name: sums(name).join(whole, on="block").select("block", name, **{f"{name}_ln": (col("y") + 5 * col("mean")) / (col("n") + 5)})

# What this router saw: running sums over its own dispatches and answers, on all rows of one shard in the total order.
candidates = (
    decisions.filter(is_sampled(col("decision_id").cast(pl.UInt64))).select("decision_id", "router", "function", "ns", "sequence", placed="shard")
    .join(shards, how="cross").filter(col("shard") != col("placed")).sort("ns")
    .join_asof(reports.select("ns", "shard", "healthy"), on="ns", by="shard", check_sortedness=False).filter(col("healthy"))
)
is_answer = ~col("error_class").is_in(["timeout", "cancelled"]).fill_null(False)
event = lambda frame, kind, change, sent_at, chosen, answered_at=None, queue=None: frame.select(
    "decision_id", "router", "shard", "function", "ns", "sequence", kind=lit(kind, dtype=pl.Int8), change=lit(change, dtype=pl.Int32),
    sent_at=sent_at, chosen=lit(chosen, dtype=pl.Boolean), answered_at=lit(None, dtype=pl.Int64) if answered_at is None else answered_at,
    queue=lit(None, dtype=pl.Int64) if queue is None else queue)
sent = decisions.select("decision_id", "router", "shard", "function", sent_at="ns")
since = lambda column: col(column) - plan["first_ns"]
events = pl.concat([
    event(decisions, 0, 1, since("ns"), True), event(candidates, 0, 0, lit(0, dtype=pl.Int64), False),
    event(outcomes.drop("router").join(sent, on="decision_id"), 1, -1, since("sent_at"), None,
        when(is_answer).then("ns"), when(is_answer).then("queue_len")),
])
before = lambda value: value.shift(1, fill_value=0)
shard, pair = ["router", "shard"], ["router", "shard", "function"]
# In the total order once; what comes behind keeps it within each group.
seen = (
    events.sort("ns", "sequence", "kind")
    .with_columns(
        in_flight=before(col("change").cum_sum()).over(shard), sent_sum=before((col("change") * col("sent_at")).cum_sum()).over(shard),
        dispatches=before((col("change") > 0).cast(pl.Int64).cum_sum()).over(shard),
        answered_at=col("answered_at").shift(1).forward_fill().over(shard), queue=col("queue").shift(1).forward_fill().over(shard))
    .filter(col("chosen").is_not_null())
    .with_columns(
        pair_at=when("chosen").then("ns").shift(1).forward_fill().over(pair),
        pair_dispatches=when("chosen").then("dispatches").shift(1).forward_fill().over(pair))
    .join_asof(reports.select("ns", "shard", "measured_at", "region", "cores", "clock_ghz", "shard_memory_mb", "hardware", "cpu", "memory", "load",
        "running", "error_rate", "mean_latency_ms", report_queue="queue_len", report_at="ns"), on="ns", by="shard", check_sortedness=False)
    .with_columns(since_report=before(col("chosen").cast(pl.Int64).cum_sum()).over("router", "shard", "report_at"))
)
requests = (
    decisions.sort("ns", "sequence").with_columns(function_at=col("ns").shift(1).over("router", "function"), block=block(col("ns")))
    .join(exchanges, on="exchange", how="left", maintain_order="left").with_columns(col("exchange_region").fill_null(topology["defaultRegion"]))
    .join_asof(market, on="ns").join_asof(fleet, on="ns")
    .drop("ns", "sequence", "router", "function", "shard")
)
labels = outcomes.select("decision_id", "exec_ms", "queue_ms", "total_ms", "cold", "error_class", answered=lit(True))
rows = (
    seen.join(requests, on="decision_id").join(labels, on="decision_id", how="left")
    .join(whole, on="block", how="left").join(of_function.drop("slope", "mean"), on=["block", "function"], how="left").join(of_pair, on=["block", "function", "protocol", "shard"], how="left")
    .join(category("protocol"), on=["block", "protocol"], how="left").join(category("event_type"), on=["block", "event_type"], how="left")
    .join(category("trading_pair"), on=["block", "trading_pair"], how="left")
    .join(rtt.rename({"a": "router_region", "b": "region", "ms": "near"}), on=["router_region", "region"], how="left")
    .join(rtt.rename({"a": "region", "b": "exchange_region", "ms": "far"}), on=["region", "exchange_region"], how="left")
)

rank = lambda column, second="medium": col(column).replace_strict(["low", second, "high", "critical"], [0, 1, 2, 3], return_dtype=pl.Float32)
turn = lambda share: share * (2 * math.pi)
hour = turn((col("ns") % 86_400_000_000_000) / 86400e9)
weekday = turn((col("ns") / 86400e9 + 4) % 7 / 7)
known = col("mean").is_not_null()
f32 = dict(
    event_type_ln_ms=col("event_type_ln"), data_complexity=col("data_complexity"), expected_compute_ms=col("expected_compute_ms"),
    business_priority=rank("priority", "normal"), trading_pair_ln_ms=col("trading_pair_ln"), protocol_ln_ms=col("protocol_ln"),
    risk_level=rank("risk_level"), amount_ln_usd=col("amount_usd").fill_null(0).log1p(), amount_missing=col("amount_usd").is_null(),
    shard_load_mean=col("load_mean"), shard_load_max=col("load_max"), shard_load_variance=col("load_variance"), healthy_shards=col("n_healthy"),
    hour_sin=hour.sin(), hour_cos=hour.cos(), weekday_sin=weekday.sin(), weekday_cos=weekday.cos(),
    volatility_bp=pl.coalesce("event_volatility_bp", "volatility_bp"), trend_bp=pl.coalesce("event_trend_bp", "trend_bp"), urgency=rank("urgency"),
    exchange_calls=col("exchange_calls"), memory_mb=col("memory_mb"), function_ln_ms=col("mean") + col("function_effect"),
    function_cold_ms=(col("cold_ms") / col("n_cold") - (col("mean") + col("function_effect")).exp()).clip(lower_bound=0),
    since_function_s=(col("ns") - col("function_at")) / 1e9, in_flight_per_core=col("in_flight") / col("cores"),
    in_flight_age_ms=when(col("in_flight") > 0).then((since("ns") - col("sent_sum") / col("in_flight")) / 1e6),
    piggyback_queue_per_core=col("queue").fill_null(0) / col("cores"), piggyback_age_ms=(col("ns") - col("answered_at")) / 1e6,
    dispatched_since_report=col("since_report"),
    service_ln_ms=col("mean") + col("function_effect") + col("shard_effect").fill_null(0) + col("pair_effect").fill_null(0)
        + col("slope") * col("data_complexity").log(),
    shard_effect_ln=col("shard_effect"), pair_effect_ln=col("pair_effect"),
    pair_samples_ln=when(known).then(col("pair_n").fill_null(0).log1p()), since_dispatch_s=(col("ns") - col("pair_at")) / 1e9,
    dispatches_since=col("dispatches") - col("pair_dispatches"), rtt_ms=col("near"), exchange_rtt_ms=col("far"),
    exchange_net_ms=col("far") * col("exchange_calls"), cores=col("cores"), clock_ghz=col("clock_ghz"), shard_memory_mb=col("shard_memory_mb"),
    hardware_compute=col("hardware") == "compute", hardware_memory=col("hardware") == "memory", hardware_burstable=col("hardware") == "burstable",
    report_cpu=col("cpu"), report_memory=col("memory"), report_load=col("load"), report_queue_per_core=col("report_queue") / col("cores"),
    report_running_per_core=col("running") / col("cores"), report_error_rate=col("error_rate"), report_latency_ms=col("mean_latency_ms"),
    report_age_ms=(col("ns") - col("measured_at")) / 1e6,
)
label = lambda name: when("chosen").then(name).alias(name)
rows.select(
    "decision_id", "router", "shard", "chosen", "known_at", "event_at", "block", "function", "protocol", "propensity", "policy", "decided_by",
    "model_version", *[number(value).fill_null(math.nan).alias(name) for name, value in f32.items()],
    label("exec_ms"), label("queue_ms"),
    when("chosen").then((col("total_ms") - col("exec_ms") - col("queue_ms")).clip(lower_bound=0)).alias("net_ms"), label("total_ms"), label("cold"),
    when(col("chosen") & col("answered")).then(col("error_class").is_null()).alias("ok"), label("error_class"),
    censored=col("chosen") & col("answered").is_null(),
).sink_parquet(plan["out"], compression="zstd", engine="streaming", maintain_order=False)
made = pl.scan_parquet(plan["out"])
print(json.dumps({"rows": made.select(pl.len()).collect().item(), "columns": len(made.collect_schema())}))
