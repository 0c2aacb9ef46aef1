"""Send a sound window by window: each is a task, with the state that the answer before it brought."""

from collections.abc import AsyncIterator

from splitplace.bus.settings import Settings
from splitplace.commands.submit.asking import asking
from splitplace.commands.submit.request import SubmissionError, as_tensors
from splitplace.commands.submit.saving import states_of
from splitplace.messages.application import Application
from splitplace.messages.task import Answer, TaskRequest
from splitplace.services.gateway.refusals import TaskRefusedError
from splitplace.services.gateway.sounds import decode


async def ask_in_windows(
    settings: Settings, application: Application, request: TaskRequest, sound: bytes
) -> AsyncIterator[Answer]:
    """Yield the answers to the windows of a sound, in order; the first one that brings nothing is the last.

    Args:
        settings: Where the broker is.
        application: A network of sound with states.
        request: What each task has beside its window: the deadline, and other inputs. Its tensors may hold
            the states for the first window.
        sound: A WAV file.

    Raises:
        SubmissionError: It cannot be cut into windows.
        UnreachableError: As `asking` does.
    """
    try:
        windows = decode(sound, application.input, application.sound, is_one_task=False).inputs
    except TaskRefusedError as error:
        raise SubmissionError(f"--state: {error}") from error
    given = {tensor.name: tensor for tensor in request.tensors or ()}
    async with asking(settings, application.name) as ask:
        for window in windows:
            task = request.model_copy(
                update={
                    "sound": None,
                    "inputs": window.tobytes(),
                    "shape": (1, *window.shape),
                    "dtype": application.input.dtype,
                    "tensors": tuple(given.values()) or None,
                }
            )
            answer = await ask(task)
            yield answer
            if answer.status != "answered":
                return
            given |= as_tensors(states_of(answer, application.states))
