"""An echo server by asyncio protocols: echo.py PORT asyncio|uvloop."""

import asyncio
import sys


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def main(port):
    server = await asyncio.get_running_loop().create_server(
        Echo, "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if sys.argv[2] == "uvloop":
    import uvloop

    uvloop.install()
asyncio.run(main(int(sys.argv[1])))
