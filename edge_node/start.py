"""Starts an edge node: measures the device, then runs an agent."""

import asyncio
import logging

from splitplace.edge_node.agent import Agent
from splitplace.edge_node.benchmark import measure_codec, measure_gains, measure_score
from splitplace.edge_node.own_speed import OwnSpeed
from splitplace.edge_node.sessions import limit_memory
from splitplace.edge_node.settings import NodeSettings

log = logging.getLogger(__name__)


async def run(settings: NodeSettings) -> None:
    """Measure this device, then be a node until cancelled. Raises NamesakeError if there is such a node."""
    limit_memory(settings.memory_budget_bytes)
    thread_score = await asyncio.to_thread(measure_score)
    gains = await asyncio.to_thread(measure_gains, settings.usable_threads)
    codec = await asyncio.to_thread(measure_codec, compress=settings.compress)
    speed = OwnSpeed(thread_score, gains, settings.share)
    log.info(
        "node %s: score %.1f GFLOP/s, codec %.0f MB/s; %d cores, %.2f times one thread on one job, %.2f on "
        "several; threads %s",
        *(settings.node, speed.score, codec, gains.threads, gains.alone, gains.together),
        "spin" if gains.spinning else "do not spin",
    )
    await Agent(settings, speed=speed, encode_megabytes_per_second=codec).run()
