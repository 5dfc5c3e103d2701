"""The other end of the tests with asyncio: an echo server and its clients.

    asyncio_peer.py server tcp|tls|unix|udp ADDRESS [CERT KEY]
    asyncio_peer.py client tcp|tls|unix|udp ADDRESS [CERT]
"""

import asyncio
import hashlib
import os
import ssl
import sys

LARGE = 50_000_000
BLOCK = 1 << 20


def split(address):
    host, _, port = address.rpartition(":")
    return host, int(port)


# The server.


async def echo(reader, writer):
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        writer.close()
        await writer.wait_closed()
    except ConnectionError:
        writer.close()


class DatagramEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)


async def serve(kind, address, cert=None, key=None):
    if kind == "unix":
        server = await asyncio.start_unix_server(echo, address)
        print("listening on", address, flush=True)
        await server.serve_forever()
    host, port = split(address)
    if kind == "udp":
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            DatagramEcho, local_addr=(host, port))
        print("listening on %s:%d" % transport.get_extra_info("sockname"), flush=True)
        await asyncio.Event().wait()
    context = None
    if kind == "tls":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
    server = await asyncio.start_server(echo, host, port, ssl=context)
    print("listening on %s:%d" % server.sockets[0].getsockname(), flush=True)
    await server.serve_forever()


# The clients.


async def connect(kind, address, cert):
    if kind == "unix":
        return await asyncio.open_unix_connection(address)
    host, port = split(address)
    if kind == "tls":
        context = ssl.create_default_context(cafile=cert)
        return await asyncio.open_connection(host, port, ssl=context, server_hostname="localhost")
    return await asyncio.open_connection(host, port)


async def close(writer):
    writer.close()
    await writer.wait_closed()


async def large(kind, address, cert):
    """Sends and receives much at once and compares the sums."""
    reader, writer = await connect(kind, address, cert)
    sent, received = hashlib.sha256(), hashlib.sha256()

    async def send():
        left = LARGE
        while left:
            block = os.urandom(min(left, BLOCK))
            sent.update(block)
            writer.write(block)
            await writer.drain()
            left -= len(block)
        if writer.can_write_eof():
            writer.write_eof()

    async def receive():
        left = LARGE
        while left:
            data = await reader.read(min(left, BLOCK))
            assert data, "the end came %d bytes early" % left
            received.update(data)
            left -= len(data)
        if writer.can_write_eof():
            assert await reader.read() == b"", "something came after the end"

    await asyncio.gather(send(), receive())
    assert sent.digest() == received.digest(), "other bytes came back"
    await close(writer)
    return "%d bytes each way, sha256 %s" % (LARGE, sent.hexdigest())


async def half_close(kind, address, cert):
    """Ends its direction before it reads."""
    if kind == "tls":
        return "no half-close with TLS"
    reader, writer = await connect(kind, address, cert)
    data = os.urandom(200_000)
    writer.write(data)
    writer.write_eof()
    assert await reader.read() == data, "other bytes came back after the half-close"
    await close(writer)
    return "half-close"


async def many(kind, address, cert):
    """Has many connections with small messages."""

    async def one(i):
        reader, writer = await connect(kind, address, cert)
        for size in range(1, 2000, 97):
            message = bytes([i]) * size
            writer.write(message)
            assert await reader.readexactly(size) == message, "other bytes came back"
        await close(writer)

    await asyncio.gather(*(one(i) for i in range(50)))
    return "50 connections"


class Ping(asyncio.DatagramProtocol):
    def __init__(self):
        self.packets = asyncio.Queue()

    def datagram_received(self, data, addr):
        self.packets.put_nowait(data)


async def datagrams(address):
    transport, ping = await asyncio.get_running_loop().create_datagram_endpoint(
        Ping, remote_addr=split(address))
    count = 0
    for size in [1, 100, 1472, 1473, 9000, 65507] * 20:
        packet = os.urandom(size)
        for _ in range(10):  # packets may be lost
            transport.sendto(packet)
            try:
                reply = await asyncio.wait_for(ping.packets.get(), 5)
            except asyncio.TimeoutError:
                continue
            break
        else:
            raise AssertionError("no reply to %d bytes" % size)
        assert reply == packet, "other bytes came back"
        count += 1
    transport.close()
    return "%d packets" % count


async def talk(kind, address, cert=None):
    if kind == "udp":
        print(await datagrams(address))
        return
    for test in half_close, many, large:
        print(await test(kind, address, cert))


def main():
    role, *args = sys.argv[1:]
    asyncio.run({"server": serve, "client": talk}[role](*args))


main()
