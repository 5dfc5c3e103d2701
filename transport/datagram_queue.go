package transport

import "github.com/seed-80cfe818/ringloop/backend"

// packetHeader is what a queued packet counts in addition to its bytes, so that
// empty ones count too.
const packetHeader = 8

// packet is a datagram that waits to be sent: a private copy.
type packet struct {
	data []byte
	to   backend.Addr // empty for the connected peer
	next *packet
}

// maxIdlePacket is the largest buffer of a free packet that is kept, in bytes.
const maxIdlePacket = 4 << 10

// maxIdlePackets is how many free packets an endpoint keeps.
const maxIdlePackets = 64

// packetQueue holds packets, first in, first out. The first may be in flight.
type packetQueue struct {
	first, last *packet
	size        int // in bytes, with the headers
	idle        *packet
	idles       int
}

// take returns a free packet.
func (q *packetQueue) take() *packet {
	p := q.idle
	if p == nil {
		return &packet{}
	}
	q.idle, p.next = p.next, nil
	q.idles--
	return p
}

// put keeps a packet that is not used any more.
func (q *packetQueue) put(p *packet) {
	if q.idles >= maxIdlePackets || cap(p.data) > maxIdlePacket {
		return
	}
	p.next, q.idle = q.idle, p
	q.idles++
}

// push appends a packet.
func (q *packetQueue) push(p *packet) {
	if q.last == nil {
		q.first = p
	} else {
		q.last.next = p
	}
	q.last = p
	q.size += len(p.data) + packetHeader
}

// pop removes the first packet and credits what push has charged.
func (q *packetQueue) pop() *packet {
	p := q.first
	q.first, p.next = p.next, nil
	if q.first == nil {
		q.last = nil
	}
	q.size -= len(p.data) + packetHeader
	return p
}
