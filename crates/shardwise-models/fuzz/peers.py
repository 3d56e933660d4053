"""What other loaders make of damaged models: mutants of LightGBM's text, XGBoost's JSON and an ONNX file, each in a child.

    python3 -m venv target/peers && target/peers/bin/pip install lightgbm xgboost-cpu onnxruntime onnx numpy
    target/peers/bin/python crates/shardwise-models/fuzz/peers.py [mutants of each, 300]

It counts children that a signal ended, that took over ten seconds, and that loaded the mutant and answer otherwise than the
model that it was made of: nothing in these formats would tell a router.
"""

import collections
import os
import pickle
import random
import signal
import sys
import tempfile
import time

LIMIT_S = 10
FEATURES = 6


def data():
    import numpy as np

    rows = np.random.default_rng(1).normal(size=(2000, FEATURES)).astype(np.float32)
    return rows, (np.sin(rows[:, 0]) + rows[:, 1] * rows[:, 2]).astype(np.float32)


def lightgbm_text(rows, y):
    import lightgbm as lgb

    settings = {"num_leaves": 15, "verbose": -1, "num_threads": 1, "seed": 1}

    def train():
        return lgb.train(settings, lgb.Dataset(rows, y), 20).model_to_string().encode()

    def answers(path):
        return lgb.Booster(model_file=path).predict(rows[:50], num_threads=1)

    return train, answers


def xgboost_json(rows, y):
    import xgboost as xgb

    settings = {"max_depth": 4, "nthread": 1, "seed": 1, "verbosity": 0}
    def train():
        return bytes(xgb.train(settings, xgb.DMatrix(rows, y), 20).save_raw("json"))

    def answers(path):
        booster = xgb.Booster({"nthread": 1})
        booster.load_model(path)
        return booster.predict(xgb.DMatrix(rows[:50]))

    return train, answers


def onnx_trees(rows, _):
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper

    dice, keys = np.random.default_rng(2), collections.defaultdict(list)
    for tree in range(20):
        for node in range(31):  # a full tree of five levels
            is_leaf = node >= 15
            keys["nodes_treeids"].append(tree)
            keys["nodes_nodeids"].append(node)
            keys["nodes_featureids"].append(0 if is_leaf else int(dice.integers(FEATURES)))
            keys["nodes_modes"].append("LEAF" if is_leaf else "BRANCH_LEQ")
            keys["nodes_values"].append(0.0 if is_leaf else float(dice.normal()))
            keys["nodes_truenodeids"].append(0 if is_leaf else 2 * node + 1)
            keys["nodes_falsenodeids"].append(0 if is_leaf else 2 * node + 2)
            if is_leaf:
                keys["target_treeids"].append(tree)
                keys["target_nodeids"].append(node)
                keys["target_ids"].append(0)
                keys["target_weights"].append(float(dice.normal()))
    node = helper.make_node(
        "TreeEnsembleRegressor", ["rows"], ["answers"], domain="ai.onnx.ml", n_targets=1, post_transform="NONE", **keys
    )
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "trees",
        [value("rows", TensorProto.FLOAT, [None, FEATURES])],
        [value("answers", TensorProto.FLOAT, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()

    def answers(path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return session.run(None, {"rows": rows[:50]})[0].ravel()

    return lambda: model, answers


def mutant(model, dice):
    """Cuts, flips, swaps, repeats, or puts another number in the place of one."""
    content, at = bytearray(model), dice.randrange(len(model))
    length = dice.randint(1, min(64, len(model) - at))
    kind = dice.randrange(6)
    if kind == 0:
        del content[at:]
    elif kind == 1:
        for _ in range(dice.randint(1, 8)):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    elif kind == 2:
        to = dice.randrange(len(content) - length)
        content[at : at + length], content[to : to + length] = content[to : to + length], content[at : at + length]
    elif kind == 3:
        content[at:at] = content[at : at + length]
    elif kind == 4:
        del content[at : at + length]
    else:
        digits = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
        content[dice.choice(digits)] = ord(dice.choice("0123456789"))
    return bytes(content)


def outcome(answers, path, expected):
    """Loads and asks in a child, so that nothing that happens to it happens to this process."""
    import numpy as np

    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        try:
            same = np.array_equal(answers(path), expected, equal_nan=True)
            os._exit(0 if same else 1)
        except BaseException:
            os._exit(2)
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if os.WIFSIGNALED(status):
                return f"crash ({signal.Signals(os.WTERMSIG(status)).name})"
            return {0: "accepted, same answers", 1: "accepted, other answers"}.get(os.WEXITSTATUS(status), "refused")
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return f"hang over {LIMIT_S} s"


def in_child(call):
    """The result of a call that may start threads, which this process must not have when it forks."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "result")
        child = os.fork()
        if child == 0:
            with open(path, "wb") as file:
                pickle.dump(call(), file)
            os._exit(0)
        os.waitpid(child, 0)
        with open(path, "rb") as file:
            return pickle.load(file)


def main():
    n_mutants = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    rows, y = data()
    for peer in [lightgbm_text, xgboost_json, onnx_trees]:
        train, answers = peer(rows, y)
        model = in_child(train)
        dice, counts = random.Random(1), collections.Counter()
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.json" if peer is xgboost_json else "model")

            def write(content):
                with open(path, "wb") as file:
                    file.write(content)

            write(model)
            expected = in_child(lambda: answers(path))
            assert outcome(answers, path, expected) == "accepted, same answers", peer.__name__
            for _ in range(n_mutants):
                write(mutant(model, dice))
                counts[outcome(answers, path, expected)] += 1
        print(f"{peer.__name__} ({len(model)} bytes, {n_mutants} mutants):", dict(counts.most_common()), flush=True)


if __name__ == "__main__":
    main()
