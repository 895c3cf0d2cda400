"""A bridge made with mautrix-python, tested against a real homeserver."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from mautrix.appservice import AppService
from mautrix.types import EventType, MessageType

from pytest_understudy import Refused


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@asynccontextmanager
async def echo_bridge(understudy):
    """A bridge whose bot joins rooms and repeats what it is sent."""
    port = free_port()
    understudy.register({
        "id": "echo", "url": f"http://127.0.0.1:{port}", "as_token": "as", "hs_token": "hs",
        "sender_localpart": "echobot", "rate_limited": False,
        "namespaces": {"users": [{"exclusive": True, "regex": "@echo_.*"}]},
    })
    bridge = AppService(understudy.base_url, understudy.server_name, "as", "hs", "echobot", "echo",
                        loop=asyncio.get_running_loop())

    @bridge.matrix_event_handler
    async def on_event(event) -> None:
        if event.type == EventType.ROOM_MEMBER and event.state_key == bridge.bot_mxid:
            await bridge.intent.ensure_joined(event.room_id)
        elif event.type == EventType.ROOM_MESSAGE and event.content.msgtype == MessageType.TEXT:
            await bridge.intent.send_notice(event.room_id, f"you said: {event.content.body}")

    await bridge.start("127.0.0.1", port)
    bridge.ready = True
    try:
        yield bridge
    finally:
        await bridge.stop()


async def answers(understudy, text: str) -> str:
    """Say this to the bridge in a new room once its bot has joined, and wait for its answer."""
    alice = understudy.users[0]["access_token"]

    def ask() -> str:
        room = understudy.call("POST", "/createRoom", {"invite": ["@echobot:localhost"]}, alice)["room_id"]
        since = ""
        for _ in range(20):
            sync = understudy.call("GET", f"/sync?timeout=5000{since}", token=alice)
            since = "&since=" + sync["next_batch"]
            events = sync.get("rooms", {}).get("join", {}).get(room, {}).get("timeline", {}).get("events", [])
            for event in events:
                if event["sender"] == "@echobot:localhost" and event["type"] == "m.room.member":
                    content = {"msgtype": "m.text", "body": text}
                    understudy.call("PUT", f"/rooms/{room}/send/m.room.message/1", content, alice)
                if event["content"].get("msgtype") == "m.notice":
                    return event["content"]["body"]
        return "no answer"

    return await asyncio.to_thread(ask)


def test_the_bridge_answers(understudy):
    async def story():
        async with echo_bridge(understudy):
            assert await answers(understudy, "hello") == "you said: hello"

    asyncio.run(story())


def test_each_test_finds_the_first_state(understudy):
    alice = understudy.users[0]["access_token"]
    assert understudy.call("GET", "/joined_rooms", token=alice) == {"joined_rooms": []}
    with pytest.raises(Refused, match="401 M_UNKNOWN_TOKEN"):
        understudy.call("GET", "/account/whoami", token="as")


def test_the_bridge_answers_once_although_requests_to_it_fail(understudy):
    async def story():
        async with echo_bridge(understudy):
            understudy.fault({"status": 502}, service="echo", endpoint="transactions", times=1)
            understudy.fault("cut_after", service="echo", endpoint="transactions", times=1)
            assert await answers(understudy, "still there?") == "you said: still there?"

    asyncio.run(story())
    outcomes = [attempt["outcome"] for attempt in understudy.transactions("echo")]
    assert outcomes[0] == "502" and "injected" in outcomes[1], outcomes
    assert outcomes[2] == "200", outcomes
    ids = [attempt["transaction"] for attempt in understudy.transactions("echo")]
    assert ids[0] == ids[1] == ids[2], "the same transaction until it is acknowledged"


def test_a_snapshot_is_put_back(understudy):
    alice = understudy.users[0]["access_token"]
    before = understudy.snapshot()
    understudy.call("POST", "/createRoom", {}, alice)
    understudy.restore(before)
    assert understudy.call("GET", "/joined_rooms", token=alice) == {"joined_rooms": []}
