"""Compare a network in one file with its pieces, joined and prepared: `python -m benchmarks.pieces`.

Times are medians over interleaved rounds, beside the median of each round's ratio to the one file: of the
time on the clock, and of the CPU time, which other work on the machine disturbs less. Memory is private
memory (`RssAnon`), in fresh processes.
"""

import argparse
import os
import selectors
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from splitplace.edge_node.sessions import NOWHERE, give_back_memory, session_options
from splitplace.edge_node.stage.measure import private_bytes
from splitplace.edge_node.stage.pieces import joined_from
from splitplace.edge_node.stage.prepared import PreparedForms
from splitplace.edge_node.stage.preparer import Limits, Preparer
from splitplace.edge_node.stage.session import joined_session, prepared_session
from splitplace.messages.pieces import Chain, ChainStage
from splitplace.workshop.networks.catalogue import NETWORKS, PRINTED_SIDES, network
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.pieces.chain import chain_of, write_files
from splitplace.workshop.pieces.constants import with_constants_as_weights
from splitplace.workshop.pieces.cut import CutChain, cut_into_pieces
from splitplace.workshop.pieces.places import piece_places

MEBIBYTE = 1024**2
BATCHES = (1, 8)
ONE_FILE = "one file"
Run = Callable[[NDArray[Any]], NDArray[Any]]
_SAMPLE_S = 0.001
_BARE = "import sys; import splitplace.edge_node.stage.prepare; print(flush=True); sys.stdin.read()"


@dataclass(frozen=True)
class Form:
    """A way in which the network lies on the disk."""

    name: str
    kind: str
    """`file`, `joined` or `prepared`."""
    path: Path
    """The file of the network or the prepared form; the chain's manifest for `joined`."""
    stage: Path
    """The manifest of the chain."""

    def run(self, threads: int) -> Run:
        """Load it. Return a function from images to answers."""
        if self.kind == "file":
            session = ort.InferenceSession(
                self.path, session_options(threads, NOWHERE), providers=["CPUExecutionProvider"]
            )
            give_back_memory()
            source = session.get_inputs()[0].name
            return lambda images: session.run(None, {source: images})[0]
        stage = whole(Chain.model_validate_json(self.stage.read_bytes()))
        if self.kind == "joined":
            folder = self.stage.parent
            loaded = joined_session(stage, joined_from(folder, stage), folder, threads)
        else:
            loaded = prepared_session(stage, self.path, threads)
        (first,), (last,) = stage.inputs, stage.outputs
        return lambda images: loaded.run({first.name: images})[last.name]


def whole(chain: Chain) -> ChainStage:
    """Return all pieces as one stage."""
    return chain.stage(0, len(chain.pieces))


def main() -> None:
    """Build or read the network, cut it, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=NETWORKS, default="resnet50_v2", help="with random weights")
    parser.add_argument("--model", type=Path, help="an ONNX file instead: one input, one output, batch first")
    parser.add_argument("--pieces", type=int, nargs="+", default=[8, 16, 24])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, kind, path, stage, dtype, *shape = options.child
        child(Form(name, kind, Path(path), Path(stage)), dtype, [int(size) for size in shape])
        return
    model = onnx.load(options.model) if options.model else exported(options.network)
    with tempfile.TemporaryDirectory() as folder:
        forms = written(model, options.pieces, Path(folder))
        images = example(model, max(BATCHES))
        for threads in options.threads:
            print_times(forms, images, threads, options.rounds)
        print_memory(forms, images)


def exported(name: str) -> onnx.ModelProto:
    """Return a network with random weights at its published size."""
    torch.manual_seed(0)
    side = PRINTED_SIDES[name]
    net = network(name, 1000, side=side)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, side, side), dtype=np.uint8)
    return export_network(net, images)


def example(model: onnx.ModelProto, images: int) -> NDArray[Any]:
    """Return noise for a network's input."""
    tensor = model.graph.input[0].type.tensor_type
    shape = [images, *(dimension.dim_value for dimension in tensor.shape.dim[1:])]
    noise = np.random.default_rng(1).integers(0, 256, shape)
    return noise.astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))


def written(model: onnx.ModelProto, counts: Sequence[int], folder: Path) -> list[Form]:
    """Write the network in all its forms."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    file = folder / "network.onnx"
    file.write_bytes(bare.SerializeToString())
    forms = [Form(ONE_FILE, "file", file, file)]
    chosen = chain_of(model)
    cuts = {f"{len(chosen.chain.pieces)} chosen": chosen} | {
        str(count): evenly_cut(model, count) for count in counts
    }
    print(
        f"file {file.stat().st_size / MEBIBYTE:.1f} MiB; bare child process {bare_bytes() / MEBIBYTE:.1f} MiB"
    )
    for name, cut in cuts.items():
        pieces = folder / name.replace(" ", "-")
        write_files(pieces, cut)
        manifest = pieces / "chain.json"
        manifest.write_text(cut.chain.model_dump_json())
        preparer = Preparer(pieces, PreparedForms(pieces / "forms", 1 << 40), max_tensor_bytes=1 << 40)
        form = preparer.prepare(whole(cut.chain), [1], Limits(1 << 40))
        disk = sum(path.stat().st_size for path in form.model.parent.iterdir())
        share = max(piece.weights_bytes for piece in cut.chain.pieces) / max(1, weight_bytes(cut))
        print(
            f"{name} pieces: prepared in {form.seconds:.1f} s, peak {form.peak_bytes / MEBIBYTE:.1f} MiB; "
            f"pieces {weight_bytes(cut) / MEBIBYTE:.1f} MiB, form {disk / MEBIBYTE:.1f} MiB; "
            f"largest piece has {share:.0%} of the weights"
        )
        forms.append(Form(f"{name} joined", "joined", manifest, manifest))
        forms.append(Form(f"{name} prepared", "prepared", form.model, manifest))
    return forms


def evenly_cut(model: onnx.ModelProto, count: int) -> CutChain:
    """Cut a network at places as far apart as possible."""
    whole_model = with_constants_as_weights(model)
    places = piece_places(whole_model)
    chosen = np.linspace(0, len(places), count + 1, dtype=int)[1:-1]
    return cut_into_pieces(whole_model, [places[place].tensors for place in sorted(set(chosen.tolist()))])


def weight_bytes(cut: CutChain) -> int:
    """Return the size of all weights files."""
    return sum(piece.weights_bytes for piece in cut.chain.pieces)


def print_times(forms: Sequence[Form], images: NDArray[Any], threads: int, rounds: int) -> None:
    """Time all forms in turn, and check that they answer alike."""
    runs = {form.name: form.run(threads) for form in forms}
    for batch in BATCHES:
        inputs = images[:batch]
        answers = {name: run(inputs) for name, run in runs.items()}
        times = interleaved(runs, inputs, rounds)
        print(f"\n{threads} thread{'s' if threads > 1 else ''}, batch {batch}\n")
        print("| | ms | ratio | CPU ms | ratio | bit-equal |\n|---|---|---|---|---|---|")
        for name in runs:
            columns = []
            for kind in range(2):
                mine, theirs = ([pair[kind] for pair in times[which]] for which in (name, ONE_FILE))
                ratios = [one / other for one, other in zip(mine, theirs, strict=True)]
                columns.append(f"{statistics.median(mine):.1f} | {statistics.median(ratios):.3f}")
            equal = "yes" if np.array_equal(answers[name], answers[ONE_FILE]) else "**no**"
            print(f"| {name} | {' | '.join(columns)} | {equal} |", flush=True)


def interleaved(
    runs: Mapping[str, Run], images: NDArray[Any], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Return ms on the clock and of CPU, in rounds of one run each that begin with a form in turn."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    names = list(runs)
    for index in range(rounds):
        start = index % len(names)
        for name in (*names[start:], *names[:start]):
            began, began_cpu = time.perf_counter(), time.process_time()
            runs[name](images)
            elapsed, cpu = time.perf_counter() - began, time.process_time() - began_cpu
            times[name].append((1000 * elapsed, 1000 * cpu))
    return times


def print_memory(forms: Sequence[Form], images: NDArray[Any]) -> None:
    """Load and run each form in a fresh process."""
    print("\nMiB of private memory above the process\n")
    print("| | load ms | peak while loading | loaded | after batch 1 | after batch 8 |")
    print("|---|---|---|---|---|---|")
    for form in forms:
        command = [sys.executable, "-m", "benchmarks.pieces", "--child"]
        fields = [form.name, form.kind, str(form.path), str(form.stage), str(images.dtype)]
        fields += map(str, images.shape[1:])
        with subprocess.Popen([*command, *fields], stdout=subprocess.PIPE) as process:  # noqa: S603
            phases = list(sampled(process))
        base = phases[0][2]
        load_ms, peak, loaded = phases[1]
        after = [last for _, _, last in phases[2:]]
        row = [peak - base, loaded - base, *(last - base for last in after)]
        print(
            f"| {form.name} | {load_ms:.0f} | "
            + " | ".join(f"{value / MEBIBYTE:.1f}" for value in row)
            + " |",
            flush=True,
        )


def sampled(process: "subprocess.Popen[bytes]") -> Iterator[tuple[float, int, int]]:
    """Yield ms, the greatest and the last private memory of each phase of `child`."""
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        peak = 0
        while True:
            last = private_bytes(process.pid)
            peak = max(peak, last)
            if not selector.select(_SAMPLE_S):
                continue
            line = process.stdout.readline()
            if not line:
                return
            words = line.split()
            if words[0] == b"phase":
                yield float(words[1]), peak, int(words[2])
                peak = 0


def child(form: Form, dtype: str, shape: Sequence[int]) -> None:
    """Load and run a form, and say when each phase has ended."""
    phase(0.0)
    began = time.perf_counter()
    run = form.run(threads=1)
    phase(1000 * (time.perf_counter() - began))
    for batch in BATCHES:
        run(np.zeros((batch, *shape), dtype))
        phase(0.0)


def phase(milliseconds: float) -> None:
    """Say that a phase has ended, how long it took, and how much private memory there is now."""
    print("phase", milliseconds, private_bytes(os.getpid()), flush=True)


def bare_bytes() -> int:
    """Return the private memory of the preparing process before it loads a stage."""
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", _BARE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        process.stdout.readline()
        bare = private_bytes(process.pid)
        process.communicate()
    return bare


if __name__ == "__main__":
    main()
