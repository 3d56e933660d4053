# Compares a dataset with what another engine made of the same history, on about two hundred thousand rows.
import json, sys
import duckdb

dataset, other = ("'" + path.replace("'", "''") + "'" for path in sys.argv[1:])
dataset = f"read_parquet({dataset[:-1]}/date=*/*.parquet', hive_partitioning=false)"
other = f"read_parquet({other})"
# One pass of the service table in the place of four.
simpler = ["function_ln_ms", "function_cold_ms", "service_ln_ms", "shard_effect_ln", "pair_effect_ln"]

duckdb.sql("set enable_progress_bar=false")
count = lambda table: duckdb.sql(f"select count(*) from {table}").fetchall()[0][0]
types = {name: kind for name, kind, *_ in duckdb.sql(f"describe select * from {dataset}").fetchall()}
theirs = [name for name, *_ in duckdb.sql(f"describe select * from {other}").fetchall()]
shared = [name for name in theirs if name in types and name not in simpler + ["decision_id", "shard"]]
one_in = max(1, count(other) // 200_000)
sample = lambda table: f"(select *, true as there from {table} where hash(decision_id) % {one_in} = 0)"

def differs(name):
    # Sums of 64-bit floats in another order, rounded to 32 bits.
    near = f" and not coalesce(abs(a.{name} - b.{name}) <= 1e-4 * greatest(abs(a.{name}), 1e-2), false)" if types[name] in ("FLOAT", "DOUBLE") else ""
    return f"count(*) filter (where a.there and b.there and a.{name} is distinct from b.{name}{near})"

found = duckdb.sql(f"""
select count(*) filter (where a.there and b.there), count(*) filter (where a.there is null or b.there is null), {', '.join(map(differs, shared))}
from {sample(dataset)} as a full join {sample(other)} as b on a.decision_id = b.decision_id and a.shard = b.shard
""").fetchall()[0]
rows, unmatched, *differing = found
print(json.dumps({
    "other_rows": count(other), "rows": rows, "unmatched": unmatched, "columns": len(shared) + 2,
    "left_out": [name for name in types if name not in theirs], "simpler": simpler,
    "differing": {name: n for name, n in zip(shared, differing) if n > 0},
}))
