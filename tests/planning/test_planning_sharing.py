"""K-FAC-expand and -reduce of layers that use their weights many times per sample."""

from repast_dist.analog import SCHEMES, DeviceSpec
from repast_dist.ground.spec import load
from repast_dist.hardware import ChipSpec, ComponentTable, Hardware, InterconnectSpec
from repast_dist.network import LayerShape, Workload, kinds
from repast_dist.ops import OPS, OpTable
from repast_dist.planning import PartitionSpec, Policy, SoiSpec, StepWork, make_plan, step_ops
from repast_dist.settings import compose_plain

CODES = {op.name: op.number for op in OPS}
SAMPLES, TOKENS, INPUTS, OUTPUTS = 16, 64, 48, 24


def step_of(rows: int | None) -> OpTable:
    layer = LayerShape(
        name="fc",
        kind=kinds.DENSE,
        in_features=INPUTS,
        out_features=OUTPUTS,
        vectors_per_sample=TOKENS,
        factor_vectors_per_sample=rows,
    )
    conf = compose_plain(["chip=small", "interconnect=board", "components=reram_32nm"])
    hardware = Hardware(
        chip=load(ChipSpec, conf["chip"]),
        device=DeviceSpec(),
        components=load(ComponentTable, conf["components"]),
        interconnect=load(InterconnectSpec, conf["interconnect"]),
    )
    policy = Policy(soi=SoiSpec(), partition=PartitionSpec(), inversion=SCHEMES.load({}))
    work = StepWork(chips=1, micro_batches=1, micro_batch_size=SAMPLES)
    plan = make_plan(Workload(name="tokens", layers=(layer,)), hardware, policy, work)
    return step_ops(plan, None, 0, factors_due=True, inverses_due=True, solves=None)


def total(table: OpTable, op: str, column: str) -> int:
    return int(table[column][table["op"] == CODES[op]].sum())


def test_reduce_writes_one_row_per_sample_where_expand_writes_every_token() -> None:
    expand, reduce = step_of(None), step_of(1)
    assert total(expand, "write_errors", "cell_writes") == TOKENS * total(
        reduce, "write_errors", "cell_writes"
    )
    assert total(expand, "write_means", "cell_writes") == 0
    # Averages of the inputs lie beside the inputs: a row of in + 1 values per sample.
    assert total(reduce, "write_means", "cell_writes") * TOKENS == total(
        expand, "write_activations", "cell_writes"
    )
    assert total(reduce, "write_means", "digital_ops") == SAMPLES * TOKENS * (INPUTS + 1)
    assert total(reduce, "write_errors", "digital_ops") == SAMPLES * TOKENS * OUTPUTS


def test_reduce_reads_fewer_arrays_for_the_factors_and_the_same_for_the_gradient() -> None:
    expand, reduce = step_of(None), step_of(1)
    for op in ("factor_a", "factor_g"):
        ratio = total(expand, op, "crossbar_reads") / total(reduce, op, "crossbar_reads")
        # 1,024 rows fill eight arrays of 128; 16 rows sit in one.
        assert ratio == 8
    for op in ("vmm_forward", "vmm_gradient", "write_activations"):
        for column in ("crossbar_reads", "cell_writes"):
            assert total(expand, op, column) == total(reduce, op, column)
