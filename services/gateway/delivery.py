"""Publishes answers where their senders want them."""

from dataclasses import replace

from splitplace.bus.connection import Bus
from splitplace.messages import topics
from splitplace.messages.task import Answer
from splitplace.services.gateway import answers
from splitplace.services.gateway.journal import ReplyTo
from splitplace.services.gateway.reply import encoded


class Delivery:
    """The connection for answers. Where the broker refuses a response topic, the answer topic is used."""

    def __init__(self, bus: Bus) -> None:
        """Publish on this connection."""
        self._bus = bus

    def tell(self, answer: Answer, reply: ReplyTo) -> None:
        """Publish an answer that the journal does not wait for."""
        payload, properties = encoded(answer, reply)
        topic = reply.response_topic
        if topic is None:
            self._bus.post(_answer_topic(answer), payload, properties=properties)
            return

        def refused() -> None:
            self.tell(answers.with_warning(answer, answers.NOT_THERE), replace(reply, response_topic=None))

        self._bus.post(topic, payload, properties=properties, absolute=True, refused=refused)

    async def send(self, answer: Answer, reply: ReplyTo) -> bool:
        """Publish an answer. Return whether the broker took it, if not where its sender asked for it."""
        if reply.response_topic is not None:
            payload, properties = encoded(answer, reply)
            topic = reply.response_topic
            if await self._bus.publish_raw(topic, payload, properties=properties, absolute=True):
                return True
            answer = answers.with_warning(answer, answers.NOT_THERE)
        payload, properties = encoded(answer, reply)
        return await self._bus.publish_raw(_answer_topic(answer), payload, properties=properties)


def _answer_topic(answer: Answer) -> str:
    return topics.ANSWER.at(client=answer.client, task=answer.task)
