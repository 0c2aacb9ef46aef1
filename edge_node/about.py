"""What a node says of itself when it starts."""

import platform

import onnxruntime as ort

from splitplace.bus.service import software_version
from splitplace.edge_node.settings import NodeSettings
from splitplace.messages.cluster import NodeInfo


def about(settings: NodeSettings, boot: str, score: float, encode_megabytes_per_second: float) -> NodeInfo:
    """Return what a node can do that has loaded and measured nothing yet."""
    return NodeInfo(
        node=settings.node,
        boot=boot,
        score=score,
        cores=settings.cores,
        cpu_share=settings.cpu_share,
        memory_budget_bytes=settings.memory_budget_bytes,
        encode_megabytes_per_second=encode_megabytes_per_second,
        platform=platform.platform()[:200],
        software=f"splitplace {software_version()}, ONNX Runtime {ort.__version__}",
        loaded=(),
        stored=(),
        timings=(),
    )
