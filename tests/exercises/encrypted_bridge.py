"""The bot @examplebot in encrypted rooms, with mautrix-python: it repeats what it is sent, encrypted in both directions."""

import asyncio
import sys

from mautrix.appservice import AppService
from mautrix.appservice.state_store.asyncpg import PgASStateStore
from mautrix.client import Client
from mautrix.crypto import OlmMachine, PgCryptoStore
from mautrix.errors import DecryptionError
from mautrix.types import EventType, MessageType, TextMessageEventContent, TrustState
from mautrix.util.async_db import Database

SERVER, PORT, FILE = sys.argv[1], int(sys.argv[2]), sys.argv[3]


async def main():
    # An Olm message can be decrypted once: keys and sessions must be on the disk before a transaction is answered.
    crypto_db = Database.create(f"sqlite:{FILE}", upgrade_table=PgCryptoStore.upgrade_table)
    state_db = Database.create(f"sqlite:{FILE}", upgrade_table=PgASStateStore.upgrade_table)
    state_db.override_pool(crypto_db)  # one file, in which one transaction changes both
    await crypto_db.start()
    await state_db.start()
    state, keys = PgASStateStore(state_db), PgCryptoStore("bot", "a secret of your own", crypto_db)
    await keys.open()

    # 1. The appservice takes transactions; encryption_events makes it read the sections for encryption.
    bridge = AppService(SERVER, "localhost", "example-as-token", "example-hs-token", "examplebot", "example", state_store=state,
                        ephemeral_events=True, encryption_events=True)
    # 2. The bot's device, made without a log-in (MSC4190), and its Olm machine.
    client = Client(bridge.bot_mxid, base_url=SERVER, token="example-as-token", state_store=state)
    await client.create_device_msc4190(await keys.get_device_id() or "BOT", "example bridge")
    await keys.put_device_id(client.device_id)
    olm = OlmMachine(client, keys, state)
    await olm.load()
    await olm.share_keys()
    if await olm.resolve_trust(olm.own_identity) < TrustState.CROSS_SIGNED_UNTRUSTED:
        await olm.generate_recovery_key()  # the bot signs its device: newer clients send nothing to one without a signature
    # 3. Each section goes to the machine, in this order; the answer waits for all of it.
    async def on_message(message):
        async with keys.transaction():  # the Olm session and the room key from it, or neither
            await olm.handle_as_to_device_event(message)

    bridge.to_device_handler = on_message
    bridge.device_list_handler = olm.handle_device_lists  # handle_as_device_lists would query after the answer
    bridge.otk_handler = olm.handle_as_otk_counts
    bridge.synchronous_handlers = True

    @bridge.matrix_event_handler
    async def on_event(event):
        if event.type == EventType.ROOM_MEMBER:
            await olm.handle_member_event(event)  # forgets the room's outbound session
            if event.state_key == bridge.bot_mxid and event.content.membership.value == "invite":
                await client.join_room(event.room_id)
                # A service that joins is not sent the state of the room: ask once. From then on, `state` follows the events.
                encryption = await client.get_state_event(event.room_id, EventType.ROOM_ENCRYPTION)
                await state.set_encryption_info(event.room_id, encryption)
                await client.get_members(event.room_id)  # stores them in `state`
        elif event.type == EventType.ROOM_ENCRYPTED and event.sender != bridge.bot_mxid:
            try:
                clear = await olm.decrypt_megolm_event(event)
            except DecryptionError as error:  # it must not stop the events after it
                print(f"{event.sender}: unable to decrypt: {error}", flush=True)
                return
            print(f"{event.sender}: {clear.content.body}", flush=True)
            await answer(event.room_id, f"you said: {clear.content.body}", event.event_id)

    async def answer(room, text, txn):
        # 4. A new session is shared with each device of each member, joined or invited; then the event goes to the room.
        content = TextMessageEventContent(msgtype=MessageType.NOTICE, body=text)
        if not await keys.get_outbound_group_session(room):
            await olm.share_group_session(room, await state.get_members(room))
        encrypted = await olm.encrypt_megolm_event(room, EventType.ROOM_MESSAGE, content)
        await client.send_message_event(room, EventType.ROOM_ENCRYPTED, encrypted, txn_id=txn)

    await bridge.start("127.0.0.1", PORT)
    await asyncio.Event().wait()


asyncio.run(main())
