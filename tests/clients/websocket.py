"""WebSocket through haldane, with the `websockets` package: many connections over both arms,
messages, pings and close codes, through reloads and changes of weight. Run by hand:

    pip install websockets
    python tests/clients/websocket.py target/release/haldane [CONNECTIONS [RELOADS]]

Exits with 0 if nothing differed. All traffic stays on this machine.
"""
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request

from websockets import ConnectionClosed
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

CONFIG = """version: 1
listeners: [{{ address: "127.0.0.1:{edge}", limits: {{ connections: 10000 }} }}]
admin: {{ address: "127.0.0.1:{admin}" }}
state_dir: state
services:
  chat:
    baseline: "127.0.0.1:{baseline}"
    canaries: {{ v2: {{ upstream: "127.0.0.1:{canary}", version: "1" }} }}
    rollout: {{ manual: true, stages: [20%, 100%] }}
routes: [{{ name: chat, service: chat, timeout: {timeout}s }}]
"""
CODES = [1000, 1001, 1008, 1011, 3000, 4999]
PATIENCE = 60


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


async def parrot(ws):
    try:
        async for message in ws:
            if isinstance(message, str) and message.startswith("close "):
                await ws.close(int(message[6:]), "asked")
                return
            await ws.send(message)
    except ConnectionClosed:
        pass  # The client closes with a code of its own.


async def client(number, url, stop, opened, wrong):
    try:
        async with connect(url, open_timeout=PATIENCE, ping_interval=None, max_size=None) as ws:
            opened.append(number)
            sent = 0
            while not stop.is_set():
                size = random.choice([1, 125, 126, 1000, 70000])
                message = os.urandom(size) if sent % 5 == 4 else f"{number} {sent} é"
                await ws.send(message)
                if await asyncio.wait_for(ws.recv(), PATIENCE) != message:
                    wrong.append((number, "another message came back"))
                if sent % 7 == 0:
                    await asyncio.wait_for(await ws.ping(), PATIENCE)
                sent += 1
                await asyncio.sleep(random.uniform(1, 4))
            code = random.choice(CODES)
            if number % 2:
                await ws.send(f"close {code}")
                try:
                    await asyncio.wait_for(ws.recv(), PATIENCE)
                except ConnectionClosed:
                    pass
            else:
                await ws.close(code, "bye")
            if ws.close_code != code:
                wrong.append((number, f"closed with {ws.close_code}, not {code}"))
            return sent
    except Exception as error:  # Whatever it is, it must not happen.
        wrong.append((number, repr(error)))
        return 0


async def main(program, connections, reloads):
    edge, admin, baseline, canary = free_ports(4)
    directory = tempfile.TemporaryDirectory()
    path = os.path.join(directory.name, "haldane.yaml")

    def write(turn):
        text = CONFIG.format(
            edge=edge, admin=admin, baseline=baseline, canary=canary, timeout=10 + turn % 7
        )
        with open(path + ".new", "w") as file:
            file.write(text)
        os.rename(path + ".new", path)

    def post(what, body=b""):
        url = f"http://127.0.0.1:{admin}/api/v1/{what}"
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(url, data=body, method="POST", headers=headers)
        return urllib.request.urlopen(request).status

    write(0)
    options = {"max_size": None, "ping_interval": None}
    async with (
        serve(parrot, "127.0.0.1", baseline, **options),
        serve(parrot, "127.0.0.1", canary, **options),
    ):
        log = open(os.path.join(directory.name, "log"), "w")
        proxy = subprocess.Popen([program, "run", "-c", path], stderr=log)
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz").read()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
            stop, opened, wrong, tasks = asyncio.Event(), [], [], []
            for number in range(connections):
                url = f"ws://127.0.0.1:{edge}/chat"
                tasks.append(asyncio.create_task(client(number, url, stop, opened, wrong)))
                if number % 50 == 49:
                    await asyncio.sleep(0.1)
            while len(opened) + len(wrong) < connections:
                await asyncio.sleep(0.1)
            loop = asyncio.get_running_loop()
            for turn in range(reloads):
                write(turn + 1)
                await loop.run_in_executor(None, post, "reload")
                if turn % 10 == 5:
                    body = json.dumps({"weight": f"{turn % 90}%", "reason": "test"}).encode()
                    await loop.run_in_executor(None, post, "services/chat/weight", body)
                await asyncio.sleep(0.1)
            stop.set()
            sent = sum(await asyncio.gather(*tasks))
            print(f"{len(opened)} connections, {reloads} reloads, {sent} messages, {len(wrong)} wrong")
            for one in wrong[:10]:
                print("  ", *one)
            return not wrong and len(opened) == connections
        finally:
            proxy.send_signal(signal.SIGTERM)
            proxy.wait(PATIENCE)


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[2:]] + [1000, 100][len(sys.argv) - 2 :]
    sys.exit(0 if asyncio.run(main(os.path.abspath(sys.argv[1]), *numbers)) else 1)
