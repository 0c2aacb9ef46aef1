"""Edge nodes on real brokers, with a tiny application whose right answers are known."""

from pathlib import Path

import numpy as np

from splitplace.messages.cluster import CancelTask, PrepareFragments
from splitplace.messages.frames import Route
from splitplace.messages.limits import PREPARED_FROM_BYTES
from splitplace.messages.topics import NODE_CANCEL, NODE_INFO, NODE_PREPARE, NODE_STATUS
from tests.edge_node.wide_application import WIDTH, build_wide_application
from tests.edge_node.world import routes, world
from tests.support.observer import Observer
from tests.support.tiny_application import build_tiny_application, right_answers, tiny_images
from tests.support.waiting import until


async def test_one_node_runs_a_whole_network_and_says_what_it_cost(broker_url: str, tmp_path: Path) -> None:
    images, _ = tiny_images(8)
    async with world(broker_url, tmp_path, "n1") as w:
        (route,) = routes(w.application.variant("whole"), ["n1"])
        await w.outside.send(route, images)
        await until(lambda: w.outside.outputs, 20)
        header = w.outside.header("whole")
        vitals, info = await w.next_vitals("n1"), w.info("n1")
    np.testing.assert_array_equal(w.outside.output("whole"), right_answers(images))
    assert header.route is None
    assert [(report.stage, report.node) for report in header.trace] == [("whole", "n1")]
    assert header.trace[0].compute_ms > 0
    assert header.moved_bytes == images.nbytes
    assert 0 < header.expires_ms < 30_000
    assert vitals.executed == 1
    assert info.loaded == (route.fragment,)
    assert set(info.stored) == w.sharing(route.fragment)
    assert vitals.loaded_bytes == w.application.fragment(route.fragment).peak_memory_bytes
    assert [timing.fragment for timing in info.timings] == [route.fragment]


async def test_a_node_prepares_a_fragment_with_large_weights_and_tells_what_it_measured(
    mosquitto_url: str, tmp_path: Path
) -> None:
    images, _ = tiny_images(8)
    application = build_tiny_application(tmp_path / "models", weight_bytes=PREPARED_FROM_BYTES)
    async with world(mosquitto_url, tmp_path, application=application) as w:
        await w.start_node("n1", memory_budget_mb=64)
        (route,) = routes(application.variant("whole"), ["n1"])
        await w.outside.send(route, images)
        await until(lambda: w.outside.outputs, 60)
        np.testing.assert_array_equal(w.outside.output("whole"), right_answers(images))
        vitals, info = await w.next_vitals("n1"), w.info("n1")
        (told,) = info.prepared
        assert told.fragment == route.fragment
        assert vitals.loaded_bytes == told.private_bytes > 0
        assert vitals.mapped_bytes == told.mapped_bytes
        assert info.load_ms is not None
        assert info.map_ms is None
        await w.stop_node("n1")
        await w.start_node("n1", memory_budget_mb=64)
        await w.outside.send(route, images, task="client.later")
        await until(lambda: len(w.outside.outputs) == 2, 60)
        info = await w.next_info("n1")
        assert info.load_ms is None
        assert info.map_ms is not None


async def test_nodes_join_pieces_and_those_that_share_some_store_both(
    broker_url: str, tmp_path: Path
) -> None:
    images, _ = tiny_images(8)
    application = build_tiny_application(tmp_path / "models")
    async with world(broker_url, tmp_path, "n1", "n2", application=application) as w:
        (route,) = routes(application.variant("layer"), ["n1", "n2", "n1"])
        await w.outside.send(route, images)
        await until(lambda: w.outside.outputs, 20)
        np.testing.assert_array_equal(w.outside.output("layer-2"), right_answers(images))
        assert set((await w.next_info("n2")).stored) == {route.next[0].fragment}
        (whole,) = routes(application.variant("whole"), ["n2"])
        await w.outside.send(whole, images)
        await until(lambda: len(w.outside.outputs) == 2, 20)
        np.testing.assert_array_equal(w.outside.output("whole"), right_answers(images))
        assert set((await w.next_info("n2")).stored) == w.sharing(whole.fragment)
        asked = [request.fragment for request in w.repository.requests if request.node == "n2"]
        assert sorted(asked) == sorted(w.files(whole.fragment)), "each file once"


async def test_a_chain_over_three_nodes_passes_every_micro_batch_on(broker_url: str, tmp_path: Path) -> None:
    images, _ = tiny_images(20)
    async with world(broker_url, tmp_path, "n1", "n2", "n3") as w:
        (route,) = routes(w.application.variant("layer"), ["n1", "n2", "n3"])
        for number in range(5):
            await w.outside.send(
                route, images[4 * number : 4 * number + 4], micro_batch=number, micro_batches=5
            )
        await until(lambda: len(w.outside.outputs) == 5, 20)
    logits = np.concatenate([w.outside.output("layer-2", micro_batch=number) for number in range(5)])
    np.testing.assert_array_equal(logits, right_answers(images))
    header = w.outside.header("layer-2")
    assert [(report.stage, report.node) for report in header.trace] == [
        ("layer-0", "n1"),
        ("layer-1", "n2"),
        ("layer-2", "n3"),
    ]
    assert header.moved_bytes == 4 * (16 + 16 + 32)  # uint8 4x4, float32 2x2, float32 8
    assert [number for _, number in w.outside.order] == list(range(5))


async def test_a_stage_with_two_readers_sends_its_output_to_both(mosquitto_url: str, tmp_path: Path) -> None:
    """Not a variant of the tiny application, but routes may fork anywhere."""
    images, _ = tiny_images(3)
    async with world(mosquitto_url, tmp_path, "n1", "n2", "n3") as w:
        first, middle, last = w.application.variant("layer").stages
        ends = tuple(
            Route(stage=f"{last.name}-{node}", node=node, fragment=last.fragment) for node in ("n1", "n3")
        )
        fork = Route(stage="layer-1", node="n2", fragment=middle.fragment, next=ends)
        await w.outside.send(Route(stage="layer-0", node="n1", fragment=first.fragment, next=(fork,)), images)
        await until(lambda: len(w.outside.outputs) == 2, 20)
    for end in ends:
        np.testing.assert_array_equal(w.outside.output(end.stage), right_answers(images))
        assert w.outside.header(end.stage).trace[-1].node == end.node


async def test_branches_on_two_nodes_give_their_own_columns(mosquitto_url: str, tmp_path: Path) -> None:
    images, _ = tiny_images(6)
    async with world(mosquitto_url, tmp_path, "n1", "n2") as w:
        variant = w.application.variant("semantic")
        for route in routes(variant, ["n1", "n2"]):
            await w.outside.send(route, images)
        await until(lambda: len(w.outside.outputs) == 2, 20)
    logits = np.zeros((6, 4), np.float32)
    for stage in variant.sinks:
        logits[:, list(stage.classes)] = w.outside.output(stage.name)
    np.testing.assert_array_equal(logits, right_answers(images))


async def test_tensors_of_many_chunks_are_put_together_computed_and_cut_again(
    broker_url: str, tmp_path: Path
) -> None:
    application = build_wide_application(tmp_path / "models")
    values = np.random.default_rng(1).standard_normal((4, WIDTH), dtype=np.float32)
    assert values.nbytes > 6 * 256 * 1024
    async with world(broker_url, tmp_path, application=application) as w:
        await w.start_node("raw", codec="raw")
        await w.start_node("zstd", codec="zstd")
        (route,) = routes(application.variants[0], ["zstd", "raw"])
        await w.outside.send(route, values, compress=True)
        await until(lambda: w.outside.outputs, 20)
        sent = (await w.next_vitals("zstd")).sent_bytes
    expected = values.clip(min=0).reshape(4, 2, -1).sum(axis=2)
    np.testing.assert_allclose(w.outside.output("halves"), expected, rtol=1e-4)
    assert values.nbytes / 4 < sent < 0.9 * values.nbytes  # half of them are zero after the ReLU


async def test_prepared_fragments_are_loaded_before_any_tensor_comes(
    mosquitto_url: str, tmp_path: Path
) -> None:
    async with world(mosquitto_url, tmp_path, "n1") as w:
        fragments = tuple(stage.fragment for stage in w.application.variant("layer").stages)
        prepare = PrepareFragments(node="n1", task="c.t", attempt=1, fragments=fragments)
        await w.outside.bus.publish(NODE_PREPARE, prepare)
        await until(lambda: set(w.info("n1").loaded) == set(fragments), 20)
    assert not w.outside.failures


async def test_loaded_fragments_give_way_to_what_is_to_be_loaded_ahead(
    mosquitto_url: str, tmp_path: Path
) -> None:
    async with world(mosquitto_url, tmp_path) as w:
        await w.start_node("n1", memory_budget_mb=0.4)  # the whole is described as 300 kB, a part as 100 kB
        (whole,) = (stage.fragment for stage in w.application.variant("whole").stages)
        layers = tuple(stage.fragment for stage in w.application.variant("layer").stages)
        prepare = PrepareFragments(node="n1", task="c.t", attempt=1, fragments=(whole,), when_idle=True)
        await w.outside.bus.publish(NODE_PREPARE, prepare)
        await until(lambda: w.info("n1").loaded == (whole,), 20)
        prepare = prepare.model_copy(update={"fragments": layers, "gives_way": (whole,)})
        await w.outside.bus.publish(NODE_PREPARE, prepare)
        await until(lambda: set(w.info("n1").loaded) == set(layers), 20)
    assert not w.outside.failures


async def test_a_cancelled_task_is_not_computed_though_its_tensors_come_later(
    mosquitto_url: str, tmp_path: Path
) -> None:
    images, _ = tiny_images(2)
    async with world(mosquitto_url, tmp_path, "n1") as w:
        (route,) = routes(w.application.variant("whole"), ["n1"])
        await w.outside.bus.publish(NODE_CANCEL, CancelTask(node="n1", task="c.gone", attempt=3))
        await w.next_vitals("n1")
        await w.outside.send(route, images, task="c.gone", attempt=3)
        await w.outside.send(route, images, task="c.gone", attempt=4)
        await until(lambda: w.outside.outputs, 20)
        vitals = await w.next_vitals("n1")
    assert list(w.outside.outputs) == [("c.gone", 4, "whole", 0)]
    assert (vitals.executed, vitals.dropped) == (1, 1)


async def test_what_waits_for_a_fragment_until_it_expires_is_dropped(
    mosquitto_url: str, tmp_path: Path
) -> None:
    images, _ = tiny_images(2)
    async with world(mosquitto_url, tmp_path, "n1") as w:
        w.repository.lose = set(range(100))
        (route,) = routes(w.application.variant("whole"), ["n1"])
        await w.outside.send(route, images, expires_ms=300.0)
        await until(lambda: w.vitals("n1").queue_length == 1, 20)
        await until(lambda: w.vitals("n1").dropped == 1, 20)
        assert w.vitals("n1").queue_length == 0
    assert not w.outside.outputs


async def test_a_repeated_micro_batch_is_computed_once(mosquitto_url: str, tmp_path: Path) -> None:
    images, _ = tiny_images(2)
    async with world(mosquitto_url, tmp_path, "n1") as w:
        (route,) = routes(w.application.variant("whole"), ["n1"])
        for _ in range(5):
            await w.outside.send(route, images)
        await w.outside.send(route, images, task="c.last")
        await until(lambda: ("c.last", 1, "whole", 0) in w.outside.outputs, 20)
        for _ in range(5):
            await w.outside.send(route, images)
        await w.next_vitals("n1")
        vitals = await w.next_vitals("n1")
    assert vitals.executed == 2
    assert w.outside.duplicates == 0


async def test_a_slow_fetch_holds_up_no_other_fragment(mosquitto_url: str, tmp_path: Path) -> None:
    images, _ = tiny_images(2)
    async with world(mosquitto_url, tmp_path, "n1") as w:
        (whole,) = routes(w.application.variant("whole"), ["n1"])
        (branch, _) = routes(w.application.variant("semantic"), ["n1", "n2"])
        w.repository.withheld = set(w.files(whole.fragment)) - set(w.files(branch.fragment))
        await w.outside.send(whole, images, task="c.slow")
        await until(lambda: w.repository.requests, 20)
        await w.outside.send(branch, images, task="c.fast")
        await until(lambda: w.outside.order, 20)
        w.repository.withheld.clear()
        await until(lambda: len(w.outside.order) == 2, 20)
    assert [task for task, _ in w.outside.order] == ["c.fast", "c.slow"]


async def test_fragments_take_turns_where_the_budget_holds_only_one(
    mosquitto_url: str, tmp_path: Path
) -> None:
    images, _ = tiny_images(4)
    async with world(mosquitto_url, tmp_path) as w:
        await w.start_node("n1", memory_budget_mb=0.15)  # a part is described as 100 kB
        (route,) = routes(w.application.variant("layer"), ["n1", "n1", "n1"])
        for number in range(3):
            await w.outside.send(route, images, task=f"c.{number}")
        await until(lambda: len(w.outside.outputs) == 3, 30)
        vitals, info = await w.next_vitals("n1"), w.info("n1")
    for number in range(3):
        np.testing.assert_array_equal(w.outside.output("layer-2", task=f"c.{number}"), right_answers(images))
    assert len(info.loaded) == 1
    assert set(info.stored) == w.sharing(*(stage.fragment for stage in w.application.variant("layer").stages))
    assert vitals.loaded_bytes == 100_000


async def test_the_next_node_of_a_route_may_be_the_node_itself(mosquitto_url: str, tmp_path: Path) -> None:
    images, _ = tiny_images(4)
    async with world(mosquitto_url, tmp_path, "n1", "n2") as w:
        (route,) = routes(w.application.variant("layer"), ["n1", "n2", "n1"])
        await w.outside.send(route, images)
        await until(lambda: w.outside.outputs, 20)
    np.testing.assert_array_equal(w.outside.output("layer-2"), right_answers(images))


async def test_heartbeats_keep_their_rhythm_while_the_node_computes(
    mosquitto_url: str, tmp_path: Path
) -> None:
    application = build_wide_application(tmp_path / "models")
    values = np.ones((8, WIDTH), np.float32)
    async with world(mosquitto_url, tmp_path, application=application) as w:
        await w.start_node("slow", pacing=True, cpu_share=0.002)
        first = application.variants[0].stages[0]
        route = Route(stage=first.name, node="slow", fragment=first.fragment)
        await w.outside.send(route, values)
        await until(lambda: w.vitals("slow").queue_length == 1, 20)
        seen = len(w.outside.vitals)
        await until(lambda: w.outside.outputs, 60)
        beats = len(w.outside.vitals) - seen
        await w.next_vitals("slow")
        timing = w.info("slow").timings[0].milliseconds_per_image
    compute_ms = w.outside.header("relu").trace[0].compute_ms
    assert compute_ms > 300
    assert beats >= compute_ms / 200, "a heartbeat every 100 ms was asked for"
    assert timing * 8 > 0.9 * compute_ms


async def test_what_a_node_says_of_itself_is_said_again_when_it_was_damaged(
    broker_url: str, tmp_path: Path
) -> None:
    observer = Observer(broker_url, NODE_STATUS, NODE_INFO, identifier="reader")
    async with world(broker_url, tmp_path, "n1"), observer.bus:
        info = await observer.until(NODE_INFO)
        await observer.until(NODE_STATUS, lambda status: status.online)
        for damage in (b"x", b""):
            observer.forget()
            for topic in (NODE_STATUS, NODE_INFO):
                await observer.publish_raw(topic.at(node="n1"), damage, retain=True)
            assert (await observer.until(NODE_INFO)).boot == info.boot
            assert (await observer.until(NODE_STATUS)).online
