# The joins and windows of `shardwise dataset build` in SQL, for DuckDB: what SQL can say of a dataset's columns.
#
# Left out, which is in DuckDB's favour: moving means, rates that decay, breakers, what is pending by the forecast of its
# time, and three of the four passes of the service table. The rows stay in any order and go into one file.
import json, sys
import duckdb

plan = json.loads(sys.argv[1])
history, out = plan["history"], plan["out"]
text = lambda value: "'" + str(value).replace("'", "''") + "'"
table = lambda name: f"read_parquet({text(history + '/' + name + '/date=*/*.parquet')}, hive_partitioning=false)"

duckdb.sql(f"set threads={plan['threads']}; set memory_limit={text(str(plan['memory_gib']) + 'GiB')}")
duckdb.sql(f"set temp_directory={text(plan['scratch'])}; set preserve_insertion_order=false; set enable_progress_bar=false")

# Distances.
topology = json.load(open(history + "/topology.json"))
regions = topology["regions"]
rtt = [(a, b, topology["rttMs"][i * len(regions) + j]) for i, a in enumerate(regions) for j, b in enumerate(regions)]
duckdb.sql("create table rtt(a varchar, b varchar, ms float); create table exchanges(exchange varchar, region varchar)")
duckdb.executemany("insert into rtt values (?, ?, ?)", rtt)
duckdb.executemany("insert into exchanges values (?, ?)", topology["exchanges"])
default_region = text(topology["defaultRegion"])

rank = lambda column, second="medium": f"list_position(['low', '{second}', 'high', 'critical'], {column}) - 1"
block = lambda at: f"greatest({at} // {plan['block_ns']} - {plan['first_block']}, 0)"
# Which decisions have rows for all candidates, by the hash of their ids (`combine_keys`), without overflow.
times = lambda x, by: f"(({x}::uhugeint * {by}::uhugeint) % 18446744073709551616::uhugeint)::ubigint"
sampled_ids = f"""
select decision_id from (
    select decision_id, decision_id::ubigint as id, xor({times('id', 1 << 29)} | (id >> 35), {plan['salt']}::ubigint) as salted,
        xor(salted, salted >> 33) as a, {times('a', 0xff51afd7ed558ccd)} as b, xor(b, b >> 33) as c, {times('c', 0xc4ceb9fe1a85ec53)} as d,
        xor(d, d >> 33) as hash
    from decisions
) where (hash >> 11)::double < {plan['candidate_share']}::double * 9007199254740992"""

duckdb.sql(f"""
create view decisions as select *, epoch_ns(known_at) as ns, {block('epoch_ns(known_at)')} as block from {table('decisions')};
create view outcomes as select *, epoch_ns(known_at) as ns from {table('outcomes')};
create view market as select *, epoch_ns(known_at) as ns from {table('market')};
create table reports as select *, epoch_ns(known_at) as ns, epoch_ns(event_at) as measured_at,
    greatest(cpu, memory, queue_len::float / cores / (queue_len::float / cores + 4.0::float)) as load from {table('shard_reports')};

-- What the fleet said as a whole, after each report.
create table fleet as
select instants.ns, avg(load) as load_mean, max(load) as load_max, greatest(avg(load::double * load) - avg(load) ** 2, 0) as load_variance,
    count(*) filter (where healthy) as healthy
from (select ns, shard from (select distinct ns from reports), (select distinct shard from reports)) as instants
asof join reports on instants.shard = reports.shard and instants.ns >= reports.ns
group by instants.ns;

-- What history taught of service times before each block: sums that grow from block to block, shrunken.
create table cells as
select {block('outcomes.ns')} as block, function, protocol, event_type, trading_pair, shard,
    count(*) filter (where not cold) as n, sum(ln(exec_ms::double)) filter (where not cold) as y,
    sum(ln(data_complexity::double)) filter (where not cold) as x, sum(ln(data_complexity::double) ** 2) filter (where not cold) as xx,
    sum(ln(data_complexity::double) * ln(exec_ms::double)) filter (where not cold) as xy,
    count(*) filter (where cold) as n_cold, sum(exec_ms::double) filter (where cold) as cold_ms
from outcomes join decisions using (decision_id)
where error_class is null and exec_ms > 0 group by all;
create table blocks as select distinct block from decisions where block > 0;
""")
keys = {
    "pair": ("function, protocol, shard", 30), "protocol_shard": ("protocol, shard", 20), "shard": ("shard", 2),
    "function": ("function", 1), "protocol": ("protocol", 5), "event_type": ("event_type", 5), "trading_pair": ("trading_pair", 5),
}
for name, (by, _) in keys.items():
    of = ", ".join(f"cells.{key}" for key in by.split(", "))
    duckdb.sql(f"""create table sums_{name} as select blocks.block, {of}, sum(n) as n, sum(y) as y, sum(x) as x, sum(xx) as xx, sum(xy) as xy,
        sum(n_cold) as n_cold, sum(cold_ms) as cold_ms from blocks join cells on cells.block < blocks.block group by all""")
duckdb.sql("""
create table whole as
with slopes as (
    select block, (sum(xy) - sum(x * y / n) + 0.6 * 50) / (sum(xx) - sum(x * x / n) + 50) as slope
    from sums_pair where n > 0 group by block
)
select block, slope, sum(y - slope * x) / sum(n) as mean from sums_pair join slopes using (block) where n > 0 group by all;
create table of_function as select block, function, (sum(y - slope * x) - sum(n) * any_value(mean)) / (sum(n) + 1) as effect,
    sum(n_cold) as n_cold, sum(cold_ms) as cold_ms from sums_function join whole using (block) where n > 0 group by all;
create table of_shard as select block, shard, (sum(y - slope * x) - sum(n) * any_value(mean)) / (sum(n) + 2) as effect
    from sums_shard join whole using (block) where n > 0 group by all;
create table of_protocol_shard as select block, protocol, shard,
    (sum(y - slope * x) - sum(n) * any_value(mean + of_shard.effect)) / (sum(n) + 20) as effect
    from sums_protocol_shard join whole using (block) join of_shard using (block, shard) where n > 0 group by all;
create table of_pair as select block, function, protocol, shard, n, whole.mean, slope, of_function.effect as function_effect,
    of_shard.effect + coalesce(of_protocol_shard.effect, 0) as shard_effect,
    (y - slope * x - n * (mean + of_function.effect + of_shard.effect + coalesce(of_protocol_shard.effect, 0))) / (n + 30) as effect
    from sums_pair join whole using (block) join of_function using (block, function) join of_shard using (block, shard)
    left join of_protocol_shard using (block, protocol, shard) where n > 0;
""")
for name in ["protocol", "event_type", "trading_pair"]:
    duckdb.sql(f"create table of_{name} as select block, {name}, (y + 5 * mean) / (n + 5) as ln_ms from sums_{name} join whole using (block) where n > 0")

# What this router saw: running sums over its own dispatches and answers, on all rows of one shard in the total order.
duckdb.sql(f"""
create table candidates as
with sampled as (
    select decisions.decision_id, router, function, ns, sequence, shards.shard
    from decisions semi join ({sampled_ids}) as sampled_ids using (decision_id), (select distinct shard from reports) as shards
    where decisions.shard <> shards.shard
)
select sampled.decision_id, sampled.router, sampled.function, sampled.ns, sampled.sequence, sampled.shard
from sampled asof join reports on sampled.shard = reports.shard and sampled.ns >= reports.ns where healthy;

create view seen as
with events as (
    select decision_id, router, shard, function, ns, sequence, 0 as kind, 1 as change, ns as sent_at, true as chosen,
        null::bigint as answered_at, null::bigint as queue from decisions
    union all
    select decision_id, router, shard, function, ns, sequence, 0, 0, 0, false, null, null from candidates
    union all
    select decision_id, decisions.router, shard, function, outcomes.ns, outcomes.sequence, 1, -1, decisions.ns, null,
        case when error_class in ('timeout', 'cancelled') then null else outcomes.ns end,
        case when error_class in ('timeout', 'cancelled') then null else queue_len end
    from outcomes join decisions using (decision_id)
), on_shard as (
    select decision_id, router, shard, function, ns, sequence, chosen,
        coalesce(sum(change) over before, 0) as in_flight,
        coalesce(sum(change * (sent_at - {plan['first_ns']})) over before, 0) as sent_at,
        -- A filtered count over a window takes eight times as long.
        coalesce(sum(chosen::int) over before, 0) as dispatches,
        last_value(answered_at ignore nulls) over before as answered_at,
        last_value(queue ignore nulls) over before as queue
    from events
    window before as (partition by router, shard order by ns, sequence, kind rows between unbounded preceding and 1 preceding)
)
select *, max(case when chosen then ns end) over before as pair_at, max(case when chosen then dispatches end) over before as pair_dispatches
from on_shard where chosen is not null
window before as (partition by router, shard, function order by ns, sequence rows between unbounded preceding and 1 preceding);

create view rows as
with reported as (
    select seen.*, reports.ns as report_at, measured_at, region, cores, clock_ghz, shard_memory_mb, hardware, cpu, memory, load, queue_len,
        running, error_rate, mean_latency_ms
    from seen asof left join reports on seen.shard = reports.shard and seen.ns >= reports.ns
)
select *, coalesce(sum(chosen::int) over (partition by router, shard, report_at order by ns, sequence
    rows between unbounded preceding and 1 preceding), 0) as since_report from reported;

create view requests as
with placed as (
    select decisions.*, lag(ns) over (partition by router, function order by ns, sequence) as function_at,
        coalesce(exchanges.region, {default_region}) as exchange_region
    from decisions left join exchanges using (exchange)
), priced as (
    select placed.*, coalesce(event_volatility_bp, volatility_bp) as volatility, coalesce(event_trend_bp, trend_bp) as trend
    from placed asof left join market on placed.ns >= market.ns
)
select priced.*, load_mean, load_max, load_variance, healthy from priced asof left join fleet on priced.ns >= fleet.ns;
""")

f32 = {
    "event_type_ln_ms": "of_event_type.ln_ms", "data_complexity": "data_complexity", "expected_compute_ms": "expected_compute_ms",
    "business_priority": rank("priority", "normal"), "trading_pair_ln_ms": "of_trading_pair.ln_ms", "protocol_ln_ms": "of_protocol.ln_ms",
    "risk_level": rank("risk_level"), "amount_ln_usd": "ln(1 + coalesce(amount_usd, 0))", "amount_missing": "amount_usd is null",
    "shard_load_mean": "load_mean", "shard_load_max": "load_max", "shard_load_variance": "load_variance", "healthy_shards": "healthy",
    "hour_sin": "sin((r.ns % 86400000000000) / 86400e9 * 2 * pi())", "hour_cos": "cos((r.ns % 86400000000000) / 86400e9 * 2 * pi())",
    "weekday_sin": "sin((r.ns / 86400e9 + 4) % 7 / 7 * 2 * pi())", "weekday_cos": "cos((r.ns / 86400e9 + 4) % 7 / 7 * 2 * pi())",
    "volatility_bp": "volatility", "trend_bp": "trend", "urgency": rank("urgency"), "exchange_calls": "exchange_calls", "memory_mb": "memory_mb",
    "function_ln_ms": "whole.mean + of_function.effect",
    "function_cold_ms": "greatest(of_function.cold_ms / of_function.n_cold - exp(whole.mean + of_function.effect), 0)",
    "since_function_s": "(r.ns - function_at) / 1e9",
    "in_flight_per_core": "in_flight / cores",
    "in_flight_age_ms": f"case when in_flight > 0 then (r.ns - {plan['first_ns']} - sent_at / in_flight) / 1e6 end",
    "piggyback_queue_per_core": "coalesce(queue, 0) / cores", "piggyback_age_ms": "(r.ns - answered_at) / 1e6",
    "dispatched_since_report": "since_report",
    "service_ln_ms": "whole.mean + of_function.effect + coalesce(of_pair.shard_effect, 0) + coalesce(of_pair.effect, 0) + whole.slope * ln(data_complexity)",
    "shard_effect_ln": "of_pair.shard_effect", "pair_effect_ln": "of_pair.effect",
    "pair_samples_ln": "case when whole.mean is not null then ln(1 + coalesce(of_pair.n, 0)) end",
    "since_dispatch_s": "(r.ns - pair_at) / 1e9", "dispatches_since": "dispatches - pair_dispatches",
    "rtt_ms": "near.ms", "exchange_rtt_ms": "far.ms", "exchange_net_ms": "far.ms * exchange_calls", "cores": "cores", "clock_ghz": "clock_ghz",
    "shard_memory_mb": "shard_memory_mb", "hardware_compute": "hardware = 'compute'", "hardware_memory": "hardware = 'memory'",
    "hardware_burstable": "hardware = 'burstable'", "report_cpu": "cpu", "report_memory": "memory", "report_load": "load",
    "report_queue_per_core": "r.queue_len / cores", "report_running_per_core": "running / cores", "report_error_rate": "error_rate",
    "report_latency_ms": "mean_latency_ms", "report_age_ms": "(r.ns - measured_at) / 1e6",
}
features = ",\n".join(f"coalesce(({value})::float, 'nan'::float) as {name}" for name, value in f32.items())
duckdb.sql(f"""
copy (
    select decision_id, d.router, r.shard, chosen, d.known_at, d.event_at, d.block, d.function, d.protocol, propensity, policy, decided_by,
        model_version, {features},
        case when chosen then exec_ms end as exec_ms, case when chosen then queue_ms end as queue_ms,
        case when chosen then greatest(total_ms - exec_ms - queue_ms, 0) end as net_ms, case when chosen then total_ms end as total_ms,
        case when chosen then cold end as cold, case when chosen and o.decision_id is not null then error_class is null end as ok,
        case when chosen then error_class end as error_class, chosen and o.decision_id is null as censored
    from rows as r join requests as d using (decision_id) left join outcomes as o using (decision_id)
    left join whole on d.block = whole.block left join of_function on d.block = of_function.block and d.function = of_function.function
    left join of_pair on d.block = of_pair.block and d.function = of_pair.function and d.protocol = of_pair.protocol and r.shard = of_pair.shard
    left join of_protocol on d.block = of_protocol.block and d.protocol = of_protocol.protocol
    left join of_event_type on d.block = of_event_type.block and d.event_type = of_event_type.event_type
    left join of_trading_pair on d.block = of_trading_pair.block and d.trading_pair = of_trading_pair.trading_pair
    left join rtt as near on d.router_region = near.a and r.region = near.b
    left join rtt as far on r.region = far.a and d.exchange_region = far.b
) to {text(out)} (format parquet, compression zstd)
""")
print(json.dumps({
    "rows": duckdb.sql(f"select count(*) from read_parquet({text(out)})").fetchall()[0][0],
    "columns": len(duckdb.sql(f"describe select * from read_parquet({text(out)})").fetchall()),
}))
