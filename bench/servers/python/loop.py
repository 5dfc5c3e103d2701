"""What callbacks, timers and tasks cost: loop.py asyncio|uvloop SECONDS.

Prints nanoseconds per operation as JSON. The cases are those of package micro.
"""

import asyncio
import json
import sys
import threading
import time

BATCH = 1000


async def measure(seconds, once):
    await once()
    n, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        await once()
        n += BATCH
    return (time.perf_counter() - start) / n * 1e9


def nothing():
    pass


async def call_soon():
    loop = asyncio.get_running_loop()
    for _ in range(BATCH):
        loop.call_soon(nothing)
    await asyncio.sleep(0)


async def call_soon_threadsafe():
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = BATCH

    def count():
        nonlocal left
        left -= 1
        if left == 0:
            done.set_result(None)

    def post():
        for _ in range(BATCH):
            loop.call_soon_threadsafe(count)

    thread = threading.Thread(target=post)
    thread.start()
    await done
    thread.join()


async def create_tasks():
    left = BATCH

    async def count():
        nonlocal left
        left -= 1

    tasks = [asyncio.create_task(count()) for _ in range(BATCH)]
    while left:
        await asyncio.sleep(0)
    del tasks


async def switches(seconds):
    stop = False

    async def give_way():
        while not stop:
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(give_way()) for _ in range(BATCH)]
    ns = await measure(seconds, lambda: asyncio.sleep(0))
    stop = True
    await asyncio.gather(*tasks)
    return ns


async def timers(pending, seconds):
    loop = asyncio.get_running_loop()
    handles = [loop.call_later(3600 + i / 1e9, nothing) for i in range(pending)]

    async def once():
        for _ in range(BATCH):
            loop.call_later(60, nothing).cancel()
        await asyncio.sleep(0)

    ns = await measure(seconds, once)
    for handle in handles:
        handle.cancel()
    return ns


async def main(seconds):
    result = {
        "call_soon": await measure(seconds, call_soon),
        "call_soon_threadsafe": await measure(seconds, call_soon_threadsafe),
        "create task": await measure(seconds, create_tasks),
        "switch task": await switches(seconds),
    }
    for pending in 1000, 1000000:
        result[f"timer, {pending} pending"] = await timers(pending, seconds)
    print(json.dumps(result))


if sys.argv[1] == "uvloop":
    import uvloop

    uvloop.install()
asyncio.run(main(float(sys.argv[2])))
